use std::sync::Arc;

use gust_model::{DagId, DagVersionId, dag::Dag};
use gust_ports::{Tx, metastore::DagGraphs};

use crate::SchedulerError;

/// The graph of a version that a row names.
///
/// # Errors
/// [`SchedulerError::MissingVersion`] and [`SchedulerError::Graph`] when there is none that can be read, and the
/// metastore's.
pub(crate) async fn graph_of(
    graphs: &DagGraphs,
    tx: &mut dyn Tx,
    dag_id: &DagId,
    id: DagVersionId,
) -> Result<Arc<Dag>, SchedulerError> {
    let missing = || SchedulerError::MissingVersion { dag_id: dag_id.clone(), version: id };
    Ok(graphs.get(tx, id).await?.ok_or_else(missing)?.dag)
}
