use std::time::Duration;

use async_trait::async_trait;
use gust_model::{
    AttemptId, DagId, DagRunId, DagVersionId, Epoch, MapIndex, PoolName, QueueName, TaskId, TaskInstanceId,
    TaskInstanceState, TriggerId,
    record::{Pool, PoolUsage, TaskInstance, TaskReschedule, Timestamp},
};
use serde_json::Value;

use super::{Listing, MetastoreError, Page, TaskInstanceFilter};

/// What task instances are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskInstanceSort {
    /// The task.
    TaskId,
    /// The map index.
    MapIndex,
    /// The state.
    State,
    /// The start.
    StartDate,
    /// The end.
    EndDate,
    /// The run's logical date.
    LogicalDate,
    /// The run's earliest start.
    RunAfter,
    /// The try.
    TryNumber,
    /// When it was queued.
    QueuedAt,
}

/// Under which condition a task instance is written. A row that does not meet it stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Nobody wrote it since it was read.
    ChangeSeq(i64),
    /// It is in this state.
    State(TaskInstanceState),
    /// It is in this state, of this epoch.
    Epoch(TaskInstanceState, Epoch),
    /// It is running, of this epoch, claimed by this attempt.
    Fence(Epoch, AttemptId),
    /// It is running and its lease has expired on the database's clock.
    LeaseExpired,
    /// Whatever it is. For what a person asks.
    Any,
}

/// What happens to the lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LeasePatch {
    /// It stays.
    #[default]
    Keep,
    /// It ends.
    End,
}

/// New values for a task instance's row; what is `None` stays. Every write moves `change_seq` and `updated_at`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskInstancePatch {
    /// The state.
    pub state: Option<TaskInstanceState>,
    /// What the planner has added up.
    pub accounted_state: Option<TaskInstanceState>,
    /// Whether the planner has to account it.
    pub is_dirty: Option<bool>,
    /// The map index (an expansion makes −1 into 0).
    pub map_index: Option<MapIndex>,
    /// The try.
    pub try_number: Option<i32>,
    /// The last try but one.
    pub max_tries: Option<i32>,
    /// Whether the epoch moves on by one.
    pub next_epoch: bool,
    /// The lease.
    pub lease: LeasePatch,
    /// When it was found runnable.
    pub scheduled_at: Option<Option<Timestamp>>,
    /// When it was admitted.
    pub queued_at: Option<Option<Timestamp>>,
    /// When its message is sent again.
    pub resend_at: Option<Option<Timestamp>>,
    /// How often it was sent.
    pub send_count: Option<i32>,
    /// The start.
    pub start_date: Option<Option<Timestamp>>,
    /// The end.
    pub end_date: Option<Option<Timestamp>>,
    /// When it moves on by itself.
    pub due_at: Option<Option<Timestamp>>,
    /// The pool.
    pub pool: Option<PoolName>,
    /// Its slots.
    pub pool_slots: Option<i32>,
    /// The queue.
    pub queue: Option<QueueName>,
    /// The weight.
    pub priority_weight: Option<i64>,
    /// The index as shown.
    pub rendered_map_index: Option<Option<String>>,
    /// The host.
    pub hostname: Option<Option<String>>,
    /// The process.
    pub pid: Option<Option<i32>>,
    /// The method to resume with.
    pub next_method: Option<Option<String>>,
    /// Its arguments.
    pub next_kwargs: Option<Value>,
    /// The trigger.
    pub trigger_id: Option<Option<TriggerId>>,
    /// The delay of a retry policy, in seconds.
    pub retry_delay_override: Option<Option<f64>>,
    /// Its reason.
    pub retry_reason: Option<Option<String>>,
    /// The DAG version.
    pub dag_version_id: Option<DagVersionId>,
    /// The note.
    pub note: Option<Option<String>>,
}

/// One guarded write.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskInstanceWrite {
    /// Which row.
    pub id: TaskInstanceId,
    /// If.
    pub guard: Guard,
    /// What.
    pub patch: TaskInstancePatch,
}

/// What a renewal tells the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// The lease's new end.
    pub expires_at: Timestamp,
    /// Whether somebody follows the log, so that it should be flushed every second.
    pub is_followed: bool,
}

/// A scheduled task instance as admission sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The row.
    pub task_instance: TaskInstance,
    /// The run's logical date.
    pub logical_date: Option<Timestamp>,
    /// The run's earliest start.
    pub run_after: Timestamp,
    /// How many task instances of one run of its DAG may be executing.
    pub max_active_tasks: i32,
}

/// Which candidates admission wants next: scheduled, of running runs of DAGs that are not paused, the heaviest first,
/// then the earliest run, then by id. Those of starved pools, runs and tasks are left out, so that a full pool at the
/// head hides nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CandidateQuery {
    /// At most so many.
    pub limit: u32,
    /// Not of these pools.
    pub starved_pools: Vec<PoolName>,
    /// Not of these runs.
    pub starved_runs: Vec<DagRunId>,
    /// Not of these tasks, in any run.
    pub starved_tasks: Vec<(DagId, TaskId)>,
    /// Not of these tasks in these runs.
    pub starved_tasks_of_runs: Vec<(DagRunId, TaskId)>,
    /// Not these rows.
    pub except: Vec<TaskInstanceId>,
}

/// How many instances of one task of one run are active, by what the limits count. Tasks with none are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveTask {
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub dag_run_id: DagRunId,
    /// The task.
    pub task_id: TaskId,
    /// How many are queued or running.
    pub executing: u32,
    /// How many are deferred or wait for a person: they count towards the task's own limits only.
    pub waiting: u32,
}

/// Task instances, their tries and reschedules, and the pools they take slots of.
#[async_trait]
pub trait TaskInstanceRows: Send {
    /// A task instance by row.
    async fn task_instance(&mut self, id: TaskInstanceId) -> Result<Option<TaskInstance>, MetastoreError>;

    /// A task instance by run, task and index.
    async fn task_instance_at(
        &mut self,
        dag_run_id: DagRunId,
        task_id: &TaskId,
        map_index: MapIndex,
    ) -> Result<Option<TaskInstance>, MetastoreError>;

    /// Task instances by filter.
    async fn task_instances(
        &mut self,
        filter: &TaskInstanceFilter,
        page: &Page<TaskInstanceSort>,
    ) -> Result<Listing<TaskInstance>, MetastoreError>;

    /// All task instances of some tasks of a run (of all tasks if none is named), by task and index, no page.
    async fn task_instances_of(
        &mut self,
        dag_run_id: DagRunId,
        task_ids: &[TaskId],
    ) -> Result<Vec<TaskInstance>, MetastoreError>;

    /// Locks and returns the task instances of a run that the planner has to look at: dirty ones, and retries and
    /// reschedules due at `now`, by id. The caller holds the run's lock.
    async fn lock_changed_task_instances(
        &mut self,
        dag_run_id: DagRunId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<TaskInstance>, MetastoreError>;

    /// Adds task instances.
    async fn insert_task_instances(&mut self, rows: &[TaskInstance]) -> Result<(), MetastoreError>;

    /// Makes guarded writes, in order. Returns the ids of the rows that were written.
    async fn update_task_instances(
        &mut self,
        writes: &[TaskInstanceWrite],
    ) -> Result<Vec<TaskInstanceId>, MetastoreError>;

    /// Removes task instances.
    async fn delete_task_instances(&mut self, ids: &[TaskInstanceId]) -> Result<(), MetastoreError>;

    /// Claims a queued try: if the row is queued in this epoch, makes it running with a lease of `ttl` from the
    /// database's clock, host and process, and its start unless it resumes from a deferral (a `next_method` keeps
    /// the start). `None` if it is not queued in this epoch: the hint is old.
    async fn claim_task_instance(
        &mut self,
        id: TaskInstanceId,
        epoch: Epoch,
        attempt_id: AttemptId,
        ttl: Duration,
        hostname: &str,
        pid: i32,
    ) -> Result<Option<TaskInstance>, MetastoreError>;

    /// Renews a lease to `ttl` from the database's clock. `None` if the try is no longer this attempt's. An expired
    /// lease that nobody took yet is renewed.
    async fn renew_lease(
        &mut self,
        id: TaskInstanceId,
        epoch: Epoch,
        attempt_id: AttemptId,
        ttl: Duration,
    ) -> Result<Option<Renewal>, MetastoreError>;

    /// Locks, skipping locked ones, running task instances whose lease has expired on the database's clock by at
    /// least `grace`.
    async fn lock_expired_leases(
        &mut self,
        grace: Duration,
        limit: u32,
    ) -> Result<Vec<TaskInstance>, MetastoreError>;

    /// Locks, skipping locked ones, queued task instances whose message is to be sent again at `now`.
    async fn lock_resends(&mut self, now: Timestamp, limit: u32)
    -> Result<Vec<TaskInstance>, MetastoreError>;

    /// Locks, skipping locked ones, deferred and awaiting task instances whose `due_at` has come.
    async fn lock_due_waits(
        &mut self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<TaskInstance>, MetastoreError>;

    /// The earliest lease end, re-send or end of a wait.
    async fn next_due_task_instance_at(&mut self) -> Result<Option<Timestamp>, MetastoreError>;

    /// Queued task instances of a queue in the order in which they should be claimed. No locks. For a worker that
    /// reads the metastore as its queue.
    async fn queued_task_instances(
        &mut self,
        queue: &QueueName,
        limit: u32,
    ) -> Result<Vec<(TaskInstanceId, Epoch)>, MetastoreError>;

    /// Says that somebody follows a task instance's log until a moment.
    async fn follow_log(&mut self, id: TaskInstanceId, until: Timestamp) -> Result<(), MetastoreError>;

    /// Keeps a try that is over.
    async fn insert_try(&mut self, row: &TaskInstance) -> Result<(), MetastoreError>;

    /// The tries that are over, by number; not the current one.
    async fn tries(&mut self, id: TaskInstanceId) -> Result<Vec<TaskInstance>, MetastoreError>;

    /// Adds a reschedule.
    async fn insert_reschedule(&mut self, row: &TaskReschedule) -> Result<(), MetastoreError>;

    /// The reschedules of a try, by start.
    async fn reschedules(
        &mut self,
        id: TaskInstanceId,
        try_number: i32,
    ) -> Result<Vec<TaskReschedule>, MetastoreError>;

    /// All pools, by name.
    async fn pools(&mut self) -> Result<Vec<Pool>, MetastoreError>;

    /// All pools, by name, their rows locked in that order.
    async fn lock_pools(&mut self) -> Result<Vec<Pool>, MetastoreError>;

    /// Writes a pool, new or not.
    async fn put_pool(&mut self, pool: &Pool) -> Result<(), MetastoreError>;

    /// Removes a pool.
    async fn delete_pool(&mut self, name: &PoolName) -> Result<bool, MetastoreError>;

    /// What is held of each pool (pools nobody uses are left out).
    async fn pool_usage(&mut self) -> Result<Vec<(PoolName, PoolUsage)>, MetastoreError>;

    /// How many are active (queued, running, deferred, awaiting input), one row a task of a run, in that order.
    async fn active_tasks(&mut self) -> Result<Vec<ActiveTask>, MetastoreError>;

    /// The next candidates for admission.
    async fn candidates(&mut self, query: &CandidateQuery) -> Result<Vec<Candidate>, MetastoreError>;
}
