use async_trait::async_trait;
use gust_model::{
    BundleVersion, DagId, DagRunId, DagRunState, DagVersionId, RunId,
    record::{DagRun, TaskTally, Timestamp},
};

use super::{DagRunFilter, Listing, MetastoreError, Page};

/// What runs are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DagRunSort {
    /// When it was made.
    QueuedAt,
    /// The DAG.
    DagId,
    /// The run's id.
    RunId,
    /// The logical date.
    LogicalDate,
    /// The earliest start.
    RunAfter,
    /// The start.
    StartDate,
    /// The end.
    EndDate,
    /// The state.
    State,
}

/// What to do about a row that somebody else has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockWait {
    /// Wait for it.
    Wait,
    /// Do as if it were not there.
    SkipLocked,
}

/// New values for a run's row; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DagRunPatch {
    /// The state.
    pub state: Option<DagRunState>,
    /// When it was made, or last put back into the queue.
    pub queued_at: Option<Timestamp>,
    /// The start.
    pub start_date: Option<Option<Timestamp>>,
    /// The end.
    pub end_date: Option<Option<Timestamp>>,
    /// The version whose graph it follows.
    pub dag_version_id: Option<DagVersionId>,
    /// The bundle version whose code it runs.
    pub bundle_version: Option<Option<BundleVersion>>,
    /// How often it was cleared.
    pub clear_number: Option<i32>,
    /// The note.
    pub note: Option<Option<String>>,
    /// Task instances not finished.
    pub unfinished_count: Option<i64>,
    /// Task instances under way.
    pub under_way_count: Option<i64>,
    /// Whether its task instances have been made.
    pub is_expanded: Option<bool>,
    /// Whether all of it has to be looked at.
    pub is_dirty: Option<bool>,
    /// When to look at it though nothing changed.
    pub due_at: Option<Option<Timestamp>>,
    /// The last pass that looked at it.
    pub last_scheduling_decision: Option<Timestamp>,
}

/// Runs, and what the planner has added up of them.
#[async_trait]
pub trait RunRows: Send {
    /// A run by its ids.
    async fn dag_run(&mut self, dag_id: &DagId, run_id: &RunId) -> Result<Option<DagRun>, MetastoreError>;

    /// A run by its row.
    async fn dag_run_by_id(&mut self, id: DagRunId) -> Result<Option<DagRun>, MetastoreError>;

    /// A run, its row locked until the transaction ends; `None` if there is none or, with
    /// [`LockWait::SkipLocked`], if somebody else holds it.
    async fn lock_dag_run(&mut self, id: DagRunId, wait: LockWait) -> Result<Option<DagRun>, MetastoreError>;

    /// Runs by filter.
    async fn dag_runs(
        &mut self,
        filter: &DagRunFilter,
        page: &Page<DagRunSort>,
    ) -> Result<Listing<DagRun>, MetastoreError>;

    /// The newest `per_dag` runs (by `run_after`) of each of these DAGs, the newest first within a DAG.
    async fn newest_dag_runs(
        &mut self,
        dag_ids: &[DagId],
        per_dag: u32,
    ) -> Result<Vec<DagRun>, MetastoreError>;

    /// Adds a run. False, and nothing written, if its DAG has one with the same run id, or with the same logical date
    /// where it has one.
    async fn insert_dag_run(&mut self, run: &DagRun) -> Result<bool, MetastoreError>;

    /// Writes some of a run's values. False if there is no such run.
    async fn update_dag_run(&mut self, id: DagRunId, patch: &DagRunPatch) -> Result<bool, MetastoreError>;

    /// Removes a run and all that hangs on it.
    async fn delete_dag_run(&mut self, id: DagRunId) -> Result<bool, MetastoreError>;

    /// Running runs that have something to advance at `now`: dirty ones, ones with dirty task instances, ones with a
    /// retry or reschedule due, ones due themselves; not paused ones' new tries: that is admission's. No locks.
    async fn dag_runs_to_advance(
        &mut self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DagRunId>, MetastoreError>;

    /// Queued runs of DAGs that are not paused, whose `run_after` has come, the oldest first. Of each DAG only as many
    /// as it has room for beside those that run, so that a DAG with many waiting hides no other; backfills are not
    /// counted so. No locks.
    async fn dag_runs_to_start(&mut self, now: Timestamp, limit: u32) -> Result<Vec<DagRun>, MetastoreError>;

    /// The earliest moment later than `now` at which [`RunRows::dag_runs_to_advance`] or
    /// [`RunRows::dag_runs_to_start`] will find something by time alone.
    async fn next_due_run_at(&mut self, now: Timestamp) -> Result<Option<Timestamp>, MetastoreError>;

    /// How many runs of a DAG are in any of these states, backfills counted or not.
    async fn count_dag_runs(
        &mut self,
        dag_id: &DagId,
        states: &[DagRunState],
        with_backfills: bool,
    ) -> Result<u64, MetastoreError>;

    /// The run before, by logical date, of the same DAG; only a successful one if asked.
    async fn previous_dag_run(
        &mut self,
        dag_id: &DagId,
        before: Timestamp,
        states: &[DagRunState],
    ) -> Result<Option<DagRun>, MetastoreError>;

    /// The run after, by logical date, of the same DAG.
    async fn following_dag_run(
        &mut self,
        dag_id: &DagId,
        after: Timestamp,
    ) -> Result<Option<DagRun>, MetastoreError>;

    /// The newest run that the timetable made (scheduled or backfill), by logical date.
    async fn last_automated_dag_run(&mut self, dag_id: &DagId) -> Result<Option<DagRun>, MetastoreError>;

    /// The states of a DAG's last `limit` finished runs, the newest first.
    async fn last_finished_states(
        &mut self,
        dag_id: &DagId,
        limit: u32,
    ) -> Result<Vec<DagRunState>, MetastoreError>;

    /// Tallies of some tasks of a run; of all if none is named. What does not exist is left out.
    async fn tallies(
        &mut self,
        dag_run_id: DagRunId,
        task_ids: &[gust_model::TaskId],
    ) -> Result<Vec<TaskTally>, MetastoreError>;

    /// Writes tallies, new or not. The caller holds the run's lock.
    async fn put_tallies(&mut self, tallies: &[TaskTally]) -> Result<(), MetastoreError>;
}
