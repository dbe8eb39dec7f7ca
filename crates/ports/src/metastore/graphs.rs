use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use gust_model::{DagId, DagVersionId, dag::Dag, record::DagVersion};
use thiserror::Error;

use super::{MetastoreError, Tx};

/// How many graphs are kept. Those asked for at one time are few; a graph is some kilobytes.
const CAPACITY: usize = 512;

/// A version of a DAG with its graph.
#[derive(Debug, Clone)]
pub struct VersionGraph {
    /// The version.
    pub version: DagVersion,
    /// Its graph.
    pub dag: Arc<Dag>,
}

/// Why the graph of a version that exists cannot be had.
#[derive(Debug, Error)]
pub enum GraphError {
    /// The metastore failed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// The stored graph is gone or damaged, or this version of Gust cannot read it.
    #[error("version {version} of DAG {dag_id} cannot be read: {reason}")]
    Unreadable {
        /// The DAG.
        dag_id: DagId,
        /// Its version.
        version: DagVersionId,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads the graph of a version; `None` if there is no such version.
pub async fn read_graph(tx: &mut dyn Tx, id: DagVersionId) -> Result<Option<VersionGraph>, GraphError> {
    let Some(version) = tx.dag_version(id).await? else { return Ok(None) };
    let unreadable =
        |reason: String| GraphError::Unreadable { dag_id: version.dag_id.clone(), version: id, reason };
    let text = tx
        .serialized_dag(&version.hash)
        .await?
        .ok_or_else(|| unreadable(format!("no graph with the hash {} is stored", version.hash)))?;
    let serialized = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    let dag = Dag::from_serialized(&serialized).map_err(|error| unreadable(error.to_string()))?;
    Ok(Some(VersionGraph { version, dag: Arc::new(dag) }))
}

/// Graphs by version, read once; the one asked for longest ago gives way. A version never changes, so what is kept is
/// never stale.
#[derive(Debug, Default)]
pub struct DagGraphs {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_version: BTreeMap<DagVersionId, (u64, VersionGraph)>,
    uses: u64,
}

impl DagGraphs {
    /// The graph of a version; `None` if there is no such version.
    pub async fn get(&self, tx: &mut dyn Tx, id: DagVersionId) -> Result<Option<VersionGraph>, GraphError> {
        if let Some(graph) = self.find(id) {
            return Ok(Some(graph));
        }
        let graph = read_graph(tx, id).await?;
        if let Some(graph) = &graph {
            self.keep(id, graph.clone());
        }
        Ok(graph)
    }

    fn find(&self, id: DagVersionId) -> Option<VersionGraph> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let now = kept.uses;
        let (used, graph) = kept.by_version.get_mut(&id)?;
        *used = now;
        Some(graph.clone())
    }

    fn keep(&self, id: DagVersionId, graph: VersionGraph) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = kept.uses;
        kept.by_version.insert(id, (now, graph));
        if kept.by_version.len() > CAPACITY
            && let Some(oldest) = kept.by_version.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| *id)
        {
            kept.by_version.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use gust_model::DagVersionId;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn graph(number: u128) -> (DagVersionId, VersionGraph) {
        let id = DagVersionId(Uuid::from_u128(number));
        let serialized = json!({"__version": 3, "dag": {"dag_id": "d", "fileloc": "d.py", "tasks": [],
            "timetable": {"__type": "airflow.timetables.simple.NullTimetable", "__var": {}}}});
        let version = DagVersion {
            id,
            dag_id: "d".into(),
            version_number: 1,
            hash: String::new(),
            bundle_name: "b".into(),
            bundle_version: None,
            created_at: DateTime::UNIX_EPOCH,
        };
        (id, VersionGraph { version, dag: Arc::new(Dag::from_serialized(&serialized).unwrap()) })
    }

    #[test]
    fn the_graph_asked_for_longest_ago_gives_way() {
        let graphs = DagGraphs::default();
        let all: Vec<_> = (0..=CAPACITY as u128).map(graph).collect();
        for (id, graph) in &all[..CAPACITY] {
            graphs.find(*id);
            graphs.keep(*id, graph.clone());
        }
        assert!(graphs.find(all[0].0).is_some());
        let (id, newest) = &all[CAPACITY];
        assert!(graphs.find(*id).is_none());
        graphs.keep(*id, newest.clone());
        assert!(graphs.find(all[0].0).is_some(), "it was just asked for");
        assert!(graphs.find(all[1].0).is_none(), "the oldest");
        assert!(graphs.find(*id).is_some());
    }
}
