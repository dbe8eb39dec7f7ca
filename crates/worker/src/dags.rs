//! The graphs of DAG versions, read once each.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use gust_model::{
    DagVersionId,
    dag::{Dag, Task},
};
use gust_ports::Tx;

use crate::error::WorkerError;

/// How many graphs are kept; the one read first goes first.
const KEPT: usize = 256;

/// Graphs by version. A version never changes, so that what was read once holds.
#[derive(Debug, Default)]
pub struct DagCache {
    kept: Mutex<VecDeque<(DagVersionId, Arc<Dag>)>>,
}

impl DagCache {
    /// The graph of a version.
    ///
    /// # Errors
    /// [`WorkerError::Missing`] where the metastore has no such version, [`WorkerError::UnreadableDag`].
    pub async fn get(&self, tx: &mut dyn Tx, id: DagVersionId) -> Result<Arc<Dag>, WorkerError> {
        if let Some(dag) = self.kept(id) {
            return Ok(dag);
        }
        let missing = |what: &str| WorkerError::Missing { what: format!("{what} of DAG version {id}") };
        let version = tx.dag_version(id).await?.ok_or_else(|| missing("row"))?;
        let text = tx.serialized_dag(&version.hash).await?.ok_or_else(|| missing("serialized form"))?;
        let unreadable =
            |reason: String| WorkerError::UnreadableDag { dag: version.dag_id.to_string(), reason };
        let value = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        let dag = Arc::new(Dag::from_serialized(&value).map_err(|error| unreadable(error.to_string()))?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((id, Arc::clone(&dag)));
        Ok(dag)
    }

    fn kept(&self, id: DagVersionId) -> Option<Arc<Dag>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().find(|(kept, _)| *kept == id).map(|(_, dag)| Arc::clone(dag))
    }
}

/// A task of a graph, if it has it.
pub(crate) fn task_of<'a>(dag: &'a Dag, task_id: &str) -> Option<&'a Task> {
    dag.index_of(task_id).map(|index| dag.task(index))
}
