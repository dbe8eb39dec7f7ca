use std::sync::Arc;

use gust_model::{
    DagVersionId,
    dag::{Dag, Task},
};
use gust_ports::{Tx, metastore::DagGraphs};

use crate::error::WorkerError;

/// The graph of a version that a row names.
///
/// # Errors
/// [`WorkerError::Missing`] where the metastore has no such version, [`WorkerError::UnreadableDag`].
pub(crate) async fn graph_of(
    graphs: &DagGraphs,
    tx: &mut dyn Tx,
    id: DagVersionId,
) -> Result<Arc<Dag>, WorkerError> {
    let graph = graphs.get(tx, id).await?;
    Ok(graph.ok_or_else(|| WorkerError::Missing { what: format!("DAG version {id}") })?.dag)
}

/// A task of a graph, if it has it.
pub(crate) fn task_of<'a>(dag: &'a Dag, task_id: &str) -> Option<&'a Task> {
    dag.index_of(task_id).map(|index| dag.task(index))
}
