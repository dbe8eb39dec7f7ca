use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Lease, Timestamp};
use crate::{BundleName, BundleVersion, CallbackId, DagId, Epoch, RunId, TaskInstanceId, TriggerId};

/// Something asynchronous that a deferred task waits for (`airflow/models/trigger.py: Trigger`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// The row.
    pub id: TriggerId,
    /// The task instance that waits.
    pub task_instance_id: TaskInstanceId,
    /// The trigger's class.
    pub classpath: String,
    /// Its arguments, in the SDK's serialized form.
    pub kwargs: Value,
    /// When it was made.
    pub created_at: Timestamp,
    /// How often a triggerer has taken it over.
    pub epoch: Epoch,
    /// The claim of the triggerer that runs it.
    pub lease: Option<Lease>,
}

/// Where a callback stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallbackState {
    /// Waiting for a worker.
    Queued,
    /// Claimed.
    Running,
    /// Done.
    Success,
    /// It raised, or its process died on every attempt.
    Failed,
}

/// A callback of a try or a run that could not run it itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Callback {
    /// The row.
    pub id: CallbackId,
    /// Where it stands.
    pub state: CallbackState,
    /// The bundle with its code.
    pub bundle_name: BundleName,
    /// The bundle version.
    pub bundle_version: Option<BundleVersion>,
    /// The DAG's file, relative to the bundle.
    pub relative_fileloc: String,
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub run_id: RunId,
    /// The task instance, for a task's callback.
    pub task_instance_id: Option<TaskInstanceId>,
    /// The request in the SDK's form (`TaskCallbackRequest`, `DagCallbackRequest`, `EmailRequest`), with its `type`.
    pub request: Value,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// How often it was handed out.
    pub epoch: Epoch,
    /// The claim of the worker that runs it.
    pub lease: Option<Lease>,
    /// What it ended with, if badly.
    pub error: Option<String>,
}

/// One wait of a sensor in reschedule mode (`airflow/models/taskreschedule.py`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReschedule {
    /// The task instance.
    pub task_instance_id: TaskInstanceId,
    /// In which try.
    pub try_number: i32,
    /// When the poke began.
    pub start_date: Timestamp,
    /// When it ended.
    pub end_date: Timestamp,
    /// When the next begins.
    pub reschedule_date: Timestamp,
}

/// The kinds of long-lived processes, or their passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComponentKind {
    /// The task scheduler with its executor and reaper.
    Scheduler,
    /// The DAG processor.
    DagProcessor,
    /// The triggerer.
    Triggerer,
    /// A worker.
    Worker,
}

/// A process that says it is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// What it is.
    pub kind: ComponentKind,
    /// Which one: host and process.
    pub name: String,
    /// When it last said so.
    pub heartbeat_at: Timestamp,
    /// When it started.
    pub started_at: Timestamp,
}
