"""A chain of a hundred tasks which the scheduler ends by itself: the cost of planning one hop."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain

with DAG("bench_empty_chain", schedule=None, catchup=False):
    chain(*(EmptyOperator(task_id=f"hop_{number:03}") for number in range(100)))
