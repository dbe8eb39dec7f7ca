use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Timestamp;
use crate::{ConnectionId, DagId, DagRunId, MapIndex, RunId, TaskId, VariableKey};

/// What names an XCom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct XComKey {
    /// The run's row.
    pub dag_run_id: DagRunId,
    /// The task that pushed it.
    pub task_id: TaskId,
    /// The map index that pushed it.
    pub map_index: MapIndex,
    /// Its key (`return_value`).
    pub key: String,
}

/// A value that a task left for others (`airflow/models/xcom.py: XComModel`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct XCom {
    /// What names it.
    pub key: XComKey,
    /// The DAG.
    pub dag_id: DagId,
    /// The run's id.
    pub run_id: RunId,
    /// The value, in the SDK's serialized form.
    pub value: Value,
    /// How many instances a task mapped over it will have, where the SDK said so.
    pub mapped_length: Option<u32>,
    /// Whether it is the result of its DAG.
    pub is_dag_result: bool,
    /// When it was written.
    pub timestamp: Timestamp,
}

/// A Variable, its value sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariableRecord {
    /// Its key.
    pub key: VariableKey,
    /// Its value, encrypted.
    pub sealed_value: String,
    /// What it is for.
    pub description: Option<String>,
}

/// A Connection, its password and extra sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRecord {
    /// Its id.
    pub conn_id: ConnectionId,
    /// Its type (`postgres`).
    pub conn_type: String,
    /// What it is for.
    pub description: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// The schema or database.
    pub schema: Option<String>,
    /// The login.
    pub login: Option<String>,
    /// The password, encrypted.
    pub sealed_password: Option<String>,
    /// The port.
    pub port: Option<i32>,
    /// Further settings as JSON text, encrypted.
    pub sealed_extra: Option<String>,
}

/// Whose state a task state store or asset state store entry is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StateStoreScope {
    /// Of a task at a map index in a run: it outlives its tries.
    Task(DagRunId, TaskId, MapIndex),
    /// Of an asset, by name or uri as the SDK gave it.
    Asset(String),
}
