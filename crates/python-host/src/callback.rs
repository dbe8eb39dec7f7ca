//! Callbacks of DAG runs, and of tasks that died without a word.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::control::Kind;
use crate::host::absolute;
use crate::messages::{DagCallbackRequest, EmailRequest, TaskCallbackRequest};
use crate::{Child, Error, Host};

/// A callback to run (`airflow/callbacks/callback_requests.py`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum CallbackRequest {
    /// `on_failure_callback` or `on_retry_callback` of a task. `task_callback_type` says which; Airflow runs it only
    /// for `failed`, `up_for_retry` and `upstream_failed`, or without a type.
    #[serde(rename = "TaskCallbackRequest")]
    Task(TaskCallbackRequest),
    /// `on_success_callback` or `on_failure_callback` of a DAG.
    #[serde(rename = "DagCallbackRequest")]
    Dag(DagCallbackRequest),
    /// The failure or retry mail of a task.
    #[serde(rename = "EmailRequest")]
    Email(EmailRequest),
}

/// Callbacks of one DAG file.
#[derive(Debug, Clone)]
pub struct SpawnCallbacks {
    /// Folder of the bundle version.
    pub bundle_path: PathBuf,
    /// The bundle's name.
    pub bundle_name: String,
    /// The file, relative to the bundle.
    pub rel_path: String,
    /// What to run, in this order; one that fails does not stop the others.
    pub requests: Vec<CallbackRequest>,
    /// Additions to the host's environment for this child.
    pub env: BTreeMap<String, String>,
}

impl Host {
    /// Starts a child that imports the file and runs the callbacks (`airflow/dag_processing/processor.py:
    /// _parse_file_entrypoint`). It behaves like a task's: serve its requests until it exits. A callback that raises
    /// is a line in its log, and the exit code is still 0.
    ///
    /// # Errors
    /// As [`Host::spawn_task`].
    pub async fn spawn_callbacks(&self, callbacks: SpawnCallbacks) -> Result<Child, Error> {
        let SpawnCallbacks { bundle_path, bundle_name, rel_path, requests, env } = callbacks;
        let first = json!({
            "type": "DagFileParseRequest",
            "file": absolute(&bundle_path)?.join(&rel_path),
            "bundle_path": absolute(&bundle_path)?,
            "bundle_name": bundle_name,
            "callback_requests": requests,
        });
        self.spawn(Kind::Callback, &bundle_path, &bundle_name, &rel_path, env, Some(&first)).await
    }
}
