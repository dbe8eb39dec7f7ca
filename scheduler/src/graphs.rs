use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use gust_model::{DagId, DagVersionId, dag::Dag};
use gust_ports::Tx;

use crate::SchedulerError;

/// How many graphs are kept. Those of runs under way are few; a graph is some kilobytes.
const CAPACITY: usize = 512;

/// DAG graphs by version, read once. A version never changes, so what is cached is never stale.
#[derive(Debug, Default)]
pub struct DagGraphs {
    graphs: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    by_version: BTreeMap<DagVersionId, (u64, Arc<Dag>)>,
    uses: u64,
}

impl DagGraphs {
    /// The graph of a version.
    ///
    /// # Errors
    /// [`SchedulerError::MissingVersion`] and [`SchedulerError::Graph`] when there is none that can be read, and the
    /// metastore's.
    pub async fn get(
        &self,
        tx: &mut dyn Tx,
        dag_id: &DagId,
        id: DagVersionId,
    ) -> Result<Arc<Dag>, SchedulerError> {
        if let Some(dag) = self.cached(id) {
            return Ok(dag);
        }
        let missing = || SchedulerError::MissingVersion { dag_id: dag_id.clone(), version: id };
        let version = tx.dag_version(id).await?.ok_or_else(missing)?;
        let text = tx.serialized_dag(&version.hash).await?.ok_or_else(missing)?;
        let serialized = serde_json::from_str(&text).unwrap_or_default();
        let dag = Dag::from_serialized(&serialized).map_err(|source| SchedulerError::Graph {
            dag_id: dag_id.clone(),
            version: id,
            source: Box::new(source),
        })?;
        let dag = Arc::new(dag);
        self.keep(id, Arc::clone(&dag));
        Ok(dag)
    }

    fn cached(&self, id: DagVersionId) -> Option<Arc<Dag>> {
        let mut cache = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        cache.uses += 1;
        let now = cache.uses;
        let (used, dag) = cache.by_version.get_mut(&id)?;
        *used = now;
        Some(Arc::clone(dag))
    }

    fn keep(&self, id: DagVersionId, dag: Arc<Dag>) {
        let mut cache = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.by_version.len() >= CAPACITY {
            let oldest = cache.by_version.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                cache.by_version.remove(&oldest);
            }
        }
        let now = cache.uses;
        cache.by_version.insert(id, (now, dag));
    }
}
