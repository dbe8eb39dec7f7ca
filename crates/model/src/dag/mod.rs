//! The DAG graph, read from the form in which Airflow serializes DAGs.
