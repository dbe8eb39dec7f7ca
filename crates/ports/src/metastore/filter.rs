use gust_model::{
    BundleName, DagId, DagRunId, DagRunState, DagRunType, MapIndex, PoolName, QueueName, RunId, TaskId,
    TaskInstanceState, record::Timestamp,
};

/// Which way a listing is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first; what is absent last.
    Ascending,
    /// Largest first; what is absent last.
    Descending,
}

/// One page of a sorted listing. Ties are broken by the row's identity, so that pages never overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<S> {
    /// At most so many.
    pub limit: u32,
    /// After so many.
    pub offset: u32,
    /// Sorted by these, the first first.
    pub sort: Vec<(S, Direction)>,
}

impl<S> Page<S> {
    /// The first `limit`, in the order of the rows' identity.
    #[must_use]
    pub fn first(limit: u32) -> Self {
        Self { limit, offset: 0, sort: Vec::new() }
    }
}

/// A page and how many there are in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// The page.
    pub items: Vec<T>,
    /// How many match, on all pages.
    pub total: u64,
}

/// Bounds on a moment; a bound that is absent does not bind, and a row without the moment matches only if no bound is
/// given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// Not before.
    pub gte: Option<Timestamp>,
    /// After.
    pub gt: Option<Timestamp>,
    /// Not after.
    pub lte: Option<Timestamp>,
    /// Before.
    pub lt: Option<Timestamp>,
}

/// Which DAGs. Everything given must hold; an empty list does not bind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DagFilter {
    /// Only these.
    pub dag_ids: Vec<DagId>,
    /// Those whose id or display name holds this text, in any case.
    pub name_contains: Option<String>,
    /// Those with any of these tags.
    pub tags_any: Vec<String>,
    /// Those with all of these tags.
    pub tags_all: Vec<String>,
    /// Those whose owners include any of these.
    pub owners_any: Vec<String>,
    /// Only paused, or only others.
    pub is_paused: Option<bool>,
    /// Only stale, or only others.
    pub is_stale: Option<bool>,
    /// Only with, or without, import errors.
    pub has_import_errors: Option<bool>,
    /// Only of this bundle.
    pub bundle_name: Option<BundleName>,
    /// Only from this file, relative to the bundle.
    pub relative_fileloc: Option<String>,
    /// Those whose newest run is in this state.
    pub last_run_state: Option<DagRunState>,
}

/// Which runs. Everything given must hold; an empty list does not bind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DagRunFilter {
    /// Only of these DAGs.
    pub dag_ids: Vec<DagId>,
    /// Only these run ids.
    pub run_ids: Vec<RunId>,
    /// Those whose run id holds this text, in any case.
    pub run_id_contains: Option<String>,
    /// Only in these states.
    pub states: Vec<DagRunState>,
    /// Only of these types.
    pub run_types: Vec<DagRunType>,
    /// By logical date.
    pub logical_date: TimeRange,
    /// By the moment before which it does not start.
    pub run_after: TimeRange,
    /// By start.
    pub start_date: TimeRange,
    /// By end.
    pub end_date: TimeRange,
    /// By the last write of the row.
    pub updated_at: TimeRange,
}

/// Which task instances. Everything given must hold; an empty list does not bind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskInstanceFilter {
    /// Only of these runs, by row.
    pub dag_run_ids: Vec<DagRunId>,
    /// Only of these DAGs.
    pub dag_ids: Vec<DagId>,
    /// Only of these runs, by id.
    pub run_ids: Vec<RunId>,
    /// Only of these tasks.
    pub task_ids: Vec<TaskId>,
    /// Those whose display name or task id holds this text, in any case.
    pub name_contains: Option<String>,
    /// Only at these map indexes.
    pub map_indexes: Vec<MapIndex>,
    /// Only in these states.
    pub states: Vec<TaskInstanceState>,
    /// Only in these pools.
    pub pools: Vec<PoolName>,
    /// Only in these queues.
    pub queues: Vec<QueueName>,
    /// Only of these operators.
    pub operators: Vec<String>,
    /// By the run's logical date.
    pub logical_date: TimeRange,
    /// By the run's earliest start.
    pub run_after: TimeRange,
    /// By start.
    pub start_date: TimeRange,
    /// By end.
    pub end_date: TimeRange,
    /// By the last write of the row.
    pub updated_at: TimeRange,
}
