use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Timestamp;
use crate::{AssetId, DagId, EventId, MapIndex, RunId, TaskId};

/// An asset that a DAG names, or did (`airflow/models/asset.py: AssetModel`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asset {
    /// The row.
    pub id: AssetId,
    /// Its name.
    pub name: String,
    /// Its URI.
    pub uri: String,
    /// Its group.
    pub group: String,
    /// What its author attached.
    pub extra: Value,
    /// Whether any current DAG names it.
    pub is_active: bool,
}

/// An update of an asset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetEvent {
    /// The row.
    pub id: EventId,
    /// The asset.
    pub asset_id: AssetId,
    /// When it was updated.
    pub timestamp: Timestamp,
    /// What the task attached.
    pub extra: Value,
    /// The DAG whose task did it; none if a client did.
    pub source_dag_id: Option<DagId>,
    /// The run.
    pub source_run_id: Option<RunId>,
    /// The task.
    pub source_task_id: Option<TaskId>,
    /// The map index.
    pub source_map_index: MapIndex,
    /// The aliases through which it was named.
    pub source_aliases: Vec<String>,
    /// The partition it is for.
    pub partition_key: Option<String>,
}

/// How a DAG refers to an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssetReferenceKind {
    /// Its schedule waits for it.
    Schedule,
    /// A task of it updates it.
    Outlet,
    /// A task of it reads it.
    Inlet,
}

/// A DAG's reference to an asset or to an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetReference {
    /// The DAG that refers.
    pub dag_id: DagId,
    /// How.
    pub kind: AssetReferenceKind,
    /// The task that refers, for inlets and outlets.
    pub task_id: Option<TaskId>,
    /// The asset's name; for an alias the alias's name.
    pub name: String,
    /// The asset's URI; none for an alias.
    pub uri: Option<String>,
}

/// An update that a DAG's schedule has seen and not yet used up
/// (`airflow/models/asset.py: AssetDagRunQueue`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedAssetEvent {
    /// The DAG that waits.
    pub dag_id: DagId,
    /// The asset that was updated.
    pub asset_id: AssetId,
    /// The first update since the DAG's last run.
    pub created_at: Timestamp,
}
