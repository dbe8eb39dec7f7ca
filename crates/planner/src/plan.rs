//! What an [`crate::Advance`] decides. The caller makes all of it durable in the one transaction that holds the run's
//! lock; if one guarded write finds its row changed, the whole pass is rolled back and run again, since the tallies
//! stand or fall together with the rows.

use gust_model::{
    DagRunState, DagVersionId, MapIndex, TaskId, TaskInstanceId, TaskInstanceState, TriggerId,
    record::{TaskInstance, TaskTally, Timestamp, Trigger},
};
use serde_json::Value;

/// New values for one task instance. Every change also makes `accounted_state` the state and `is_dirty` false.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceChange {
    /// The row.
    pub id: TaskInstanceId,
    /// The row's `change_seq` as it was read. A row with another one was written since: the pass is void.
    pub change_seq: i64,
    /// The state, changed or not.
    pub state: TaskInstanceState,
    /// An expansion makes −1 into 0.
    pub map_index: Option<MapIndex>,
    /// The try.
    pub try_number: Option<i32>,
    /// Whether what a worker or an executor holds of it is taken back: the epoch moves on, the lease and the re-send
    /// end.
    pub takes_back: bool,
    /// When it was found runnable.
    pub scheduled_at: Option<Timestamp>,
    /// When it began.
    pub start_date: Option<Timestamp>,
    /// When it ended.
    pub end_date: Option<Timestamp>,
    /// When it moves on by itself; the inner `None` takes that away.
    pub due_at: Option<Option<Timestamp>>,
    /// The trigger with which it starts.
    pub trigger_id: Option<TriggerId>,
    /// The method to resume with, and its arguments.
    pub resume: Option<(String, Value)>,
    /// The DAG version that it follows now.
    pub dag_version_id: Option<DagVersionId>,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// All that counts ended well.
    Success,
    /// A task that counts failed.
    TaskFailure,
    /// Nothing can run any more.
    AllTasksDeadlocked,
    /// It took longer than it may.
    TimedOut,
}

impl RunEnd {
    /// The reason as Airflow's callbacks are told it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::TaskFailure => "task_failure",
            Self::AllTasksDeadlocked => "all_tasks_deadlocked",
            Self::TimedOut => "timed_out",
        }
    }
}

/// A callback of the DAG that is to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunCallback {
    /// Why the run ended; [`RunEnd::Success`] runs the success callback, all others the failure one.
    pub end: RunEnd,
    /// The task instance whose context it gets, if any.
    pub relevant: Option<TaskInstance>,
}

/// New values for the run's row: all that a pass may change.
#[derive(Debug, Clone, PartialEq)]
pub struct RunChange {
    /// The state.
    pub state: DagRunState,
    /// The start.
    pub start_date: Option<Timestamp>,
    /// The end.
    pub end_date: Option<Timestamp>,
    /// Task instances not finished.
    pub unfinished_count: i64,
    /// Those of them that are under way.
    pub under_way_count: i64,
    /// Whether its task instances have been made.
    pub is_expanded: bool,
    /// Whether all of it has to be looked at again.
    pub is_dirty: bool,
    /// When to look at it though nothing changed.
    pub due_at: Option<Timestamp>,
    /// This pass's moment.
    pub last_scheduling_decision: Option<Timestamp>,
}

/// Everything that a pass over one run decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The run.
    pub run: RunChange,
    /// Rows to be changed, by id; the changed rows that were handed in are all among them.
    pub changes: Vec<InstanceChange>,
    /// Rows to be added, after deletes.
    pub inserts: Vec<TaskInstance>,
    /// Rows to be removed before inserts: unexpanded ones whose first index is there already.
    pub deletes: Vec<TaskInstanceId>,
    /// Tallies to be written, new or not.
    pub tallies: Vec<TaskTally>,
    /// Triggers to be added, for tasks that start with one.
    pub triggers: Vec<Trigger>,
    /// The DAG's callback, if it ended and has one.
    pub callback: Option<RunCallback>,
    /// Why the run ended in this pass, if it did.
    pub ended: Option<RunEnd>,
    /// Tasks whose instances in the DAG's next run may have waited for this run: those of them that are in state none
    /// are to be marked dirty there (and that run is to be advanced).
    pub wakes_in_next_run: Vec<TaskId>,
    /// Whether admission has new candidates.
    pub scheduled_any: bool,
    /// Whether slots became free other than by a try's own end: queued, running or deferred instances were stopped.
    pub freed_slots: bool,
    /// Whether the DAG's last runs have to be checked against `max_consecutive_failed_dag_runs`
    /// ([`crate::should_pause`]).
    pub checks_consecutive_failures: bool,
    /// The earliest moment at which this run has something to do though nothing changes, of what this pass knows: its
    /// time limit, retries that it timed.
    pub next_due_at: Option<Timestamp>,
}
