use std::sync::Arc;

use gust_model::{DagId, DagVersionId, dag::Dag, record::DagRecord};
use gust_ports::{Tx, metastore::read_graph};

use crate::OperationError;

/// The graph of a version; `None` if there is no such version.
///
/// # Errors
/// [`OperationError::Unreadable`] if the version's graph is gone or damaged.
pub async fn dag_of_version(tx: &mut dyn Tx, id: DagVersionId) -> Result<Option<Arc<Dag>>, OperationError> {
    Ok(read_graph(tx, id).await?.map(|graph| graph.dag))
}

/// A DAG with its newest graph; `None` if there is no such DAG.
///
/// # Errors
/// [`OperationError::Unreadable`] if its graph is gone or damaged.
pub async fn latest_dag(
    tx: &mut dyn Tx,
    dag_id: &DagId,
) -> Result<Option<(DagRecord, Arc<Dag>)>, OperationError> {
    let Some(record) = tx.dag(dag_id).await? else { return Ok(None) };
    let graph = dag_of_version(tx, record.current_version_id).await?.ok_or_else(|| {
        OperationError::Unreadable { dag_id: dag_id.clone(), reason: "its newest version is gone".into() }
    })?;
    Ok(Some((record, graph)))
}
