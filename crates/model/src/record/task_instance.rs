use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Timestamp;
use crate::{
    AttemptId, DagId, DagRunId, DagVersionId, Epoch, MapIndex, PoolName, QueueName, RunId, TaskId,
    TaskInstanceId, TaskInstanceState, TriggerId,
};

/// The claim of one worker on one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// What the worker drew for itself at the claim.
    pub attempt_id: AttemptId,
    /// Until when, on the metastore's clock, nobody else may end the try.
    pub expires_at: Timestamp,
}

/// A task in a run, at one map index (`airflow/models/taskinstance.py: TaskInstance`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskInstance {
    /// The row.
    pub id: TaskInstanceId,
    /// The run's row.
    pub dag_run_id: DagRunId,
    /// The DAG.
    pub dag_id: DagId,
    /// The run's id within its DAG.
    pub run_id: RunId,
    /// The task.
    pub task_id: TaskId,
    /// The index, for an expanded task.
    pub map_index: MapIndex,
    /// Its state.
    pub state: TaskInstanceState,
    /// The state that the planner last added up into the tallies.
    pub accounted_state: TaskInstanceState,
    /// Whether its state changed in a way that the planner has to account: it finished, rests, or was reset.
    pub is_dirty: bool,
    /// Grows with every write of the row; the planner's writes are guarded by the one it read.
    pub change_seq: i64,
    /// The number of the current, or last, try; 0 before the first.
    pub try_number: i32,
    /// The number of the last try that it may have before it fails for good, less one: `retries` of the task, raised
    /// by clears.
    pub max_tries: i32,
    /// How often it was handed out or taken back.
    pub epoch: Epoch,
    /// The worker's claim, while one runs it.
    pub lease: Option<Lease>,
    /// When the planner found it runnable.
    pub scheduled_at: Option<Timestamp>,
    /// When it was admitted.
    pub queued_at: Option<Timestamp>,
    /// When its message is sent again if nobody claimed it.
    pub resend_at: Option<Timestamp>,
    /// How often its message was sent in this epoch.
    pub send_count: i32,
    /// When this try began to run.
    pub start_date: Option<Timestamp>,
    /// When this try ended.
    pub end_date: Option<Timestamp>,
    /// When it moves on without anybody: the end of a retry delay, a reschedule date, a time trigger's moment, or the
    /// limit of a deferral or of a wait for a person.
    pub due_at: Option<Timestamp>,
    /// The pool it takes slots of.
    pub pool: PoolName,
    /// How many slots it takes.
    pub pool_slots: i32,
    /// Its logical queue.
    pub queue: QueueName,
    /// Its weight at admission; more goes first.
    pub priority_weight: i64,
    /// Its executor, where the DAG names one.
    pub executor: Option<String>,
    /// The operator's class name.
    pub operator: String,
    /// The operator's name as pages show it (`@task`).
    pub operator_name: Option<String>,
    /// Its name as pages show it, where it differs from the task id.
    pub task_display_name: Option<String>,
    /// The index as pages show it, made from `map_index_template`.
    pub rendered_map_index: Option<String>,
    /// The host that runs, or ran, it.
    pub hostname: Option<String>,
    /// The process that runs, or ran, it.
    pub pid: Option<i32>,
    /// The method to resume with, after a deferral.
    pub next_method: Option<String>,
    /// Its arguments, in the SDK's serialized form; null or an object.
    pub next_kwargs: Value,
    /// The trigger it waits for.
    pub trigger_id: Option<TriggerId>,
    /// A delay in seconds that a retry policy asked for instead of the task's own.
    pub retry_delay_override: Option<f64>,
    /// Why the retry policy decided as it did.
    pub retry_reason: Option<String>,
    /// The DAG version that it follows.
    pub dag_version_id: DagVersionId,
    /// A person's note.
    pub note: Option<String>,
    /// The last write of the row.
    pub updated_at: Timestamp,
}

impl TaskInstance {
    /// Seconds between start and end of the try, once both are known.
    #[must_use]
    pub fn duration(&self) -> Option<f64> {
        let microseconds = (self.end_date? - self.start_date?).num_microseconds()?;
        #[expect(clippy::cast_precision_loss, reason = "Durations are far below 2^52 microseconds.")]
        Some(microseconds as f64 / 1e6)
    }
}

/// A try that is over, kept when the next one begins (`airflow/models/taskinstancehistory.py`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskInstanceTry {
    /// The task instance as it was when that try was over.
    pub task_instance: TaskInstance,
}

/// What the planner has added up for one task of one run. Only a pass that holds the run's lock writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskTally {
    /// The run.
    pub dag_run_id: DagRunId,
    /// The task.
    pub task_id: TaskId,
    /// How many instances a mapped task was expanded to; none before that, and for tasks that are not mapped.
    pub expanded_length: Option<u32>,
    /// How many of its own instances are in each state, as accounted. States with none are left out.
    pub own: BTreeMap<TaskInstanceState, u32>,
    /// What its direct upstream tasks' instances have come to, those of its own mapped task group left out (there
    /// every index looks at its own).
    pub upstream: UpstreamTally,
}

/// Instances of a task's direct upstreams by what they have come to
/// (`airflow/ti_deps/deps/trigger_rule_dep.py: _UpstreamTIStates`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamTally {
    /// All of them, expanded or not.
    pub total: u32,
    /// Ended well.
    pub success: u32,
    /// Skipped.
    pub skipped: u32,
    /// Failed.
    pub failed: u32,
    /// Failed because something before them did.
    pub upstream_failed: u32,
    /// Removed.
    pub removed: u32,
    /// All instances of setup tasks among them.
    pub setup_total: u32,
    /// Setups that ended well.
    pub success_setup: u32,
    /// Setups that were skipped.
    pub skipped_setup: u32,
}

impl UpstreamTally {
    /// How many are finished, one way or another.
    #[must_use]
    pub fn done(&self) -> u32 {
        self.success + self.skipped + self.failed + self.upstream_failed + self.removed
    }
}
