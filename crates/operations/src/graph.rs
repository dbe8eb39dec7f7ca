use std::{collections::BTreeMap, sync::Arc};

use gust_model::{
    DagId, DagVersionId,
    dag::Dag,
    record::{DagRecord, DagVersion},
};
use gust_ports::Tx;

use crate::OperationError;

/// The graph of a version; `None` if there is no such version.
///
/// # Errors
/// [`OperationError::Unreadable`] if the version's graph is gone or damaged.
pub async fn dag_of_version(
    tx: &mut dyn Tx,
    id: DagVersionId,
) -> Result<Option<(DagVersion, Arc<Dag>)>, OperationError> {
    let Some(version) = tx.dag_version(id).await? else { return Ok(None) };
    let unreadable = |reason: String| OperationError::Unreadable { dag_id: version.dag_id.clone(), reason };
    let text = tx
        .serialized_dag(&version.hash)
        .await?
        .ok_or_else(|| unreadable(format!("no graph with the hash {} is stored", version.hash)))?;
    let serialized = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    let dag = Dag::from_serialized(&serialized).map_err(|error| unreadable(error.to_string()))?;
    Ok(Some((version, Arc::new(dag))))
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
    Ok(Some((record, graph.1)))
}

/// Graphs read during one operation, so that many runs of one version read it once.
#[derive(Default)]
pub(crate) struct Graphs(BTreeMap<DagVersionId, Option<Arc<Dag>>>);

impl Graphs {
    pub(crate) async fn get(
        &mut self,
        tx: &mut dyn Tx,
        id: DagVersionId,
    ) -> Result<Option<Arc<Dag>>, OperationError> {
        if let Some(found) = self.0.get(&id) {
            return Ok(found.clone());
        }
        let graph = dag_of_version(tx, id).await?.map(|(_, dag)| dag);
        self.0.insert(id, graph.clone());
        Ok(graph)
    }
}
