//! What pages read of runs: per run and task a summary, whose cost does not grow with mapped instances past a bound.

use std::collections::BTreeMap;

use gust_model::{
    DagRunId, MapIndex, TaskId, TaskInstanceState,
    record::{DagRun, TaskInstance, Timestamp},
};
use gust_ports::{
    MetastoreError, Tx,
    metastore::{Page, TaskInstanceFilter},
};

/// How many task instances are read at once; beyond it the planner's tallies speak for mapped ones.
const MAX_ROWS: u32 = 3000;

/// What the instances of one task in one run have come to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Cell {
    /// How many instances are in each state.
    pub states: BTreeMap<TaskInstanceState, u32>,
    /// Whether it has been expanded.
    pub is_mapped: bool,
    /// When the first of them began.
    pub start: Option<Timestamp>,
    /// When it, or the first, was queued.
    pub queued: Option<Timestamp>,
    /// When the last of them ended, if all have.
    pub end: Option<Timestamp>,
    /// The highest try.
    pub try_number: i32,
    /// Whether something runs on.
    is_open: bool,
}

/// From what matters most to what matters least when many instances are shown as one.
const BY_WEIGHT: [TaskInstanceState; 14] = [
    TaskInstanceState::Failed,
    TaskInstanceState::UpstreamFailed,
    TaskInstanceState::UpForRetry,
    TaskInstanceState::Running,
    TaskInstanceState::Restarting,
    TaskInstanceState::AwaitingInput,
    TaskInstanceState::Deferred,
    TaskInstanceState::UpForReschedule,
    TaskInstanceState::Queued,
    TaskInstanceState::Scheduled,
    TaskInstanceState::None,
    TaskInstanceState::Success,
    TaskInstanceState::Skipped,
    TaskInstanceState::Removed,
];

impl Cell {
    /// The one state that stands for all.
    pub(super) fn state(&self) -> TaskInstanceState {
        BY_WEIGHT.into_iter().find(|state| self.states.contains_key(state)).unwrap_or(TaskInstanceState::None)
    }

    /// How many instances there are.
    pub(super) fn total(&self) -> u32 {
        self.states.values().sum()
    }

    /// `3 success, 1 failed`.
    pub(super) fn summary(&self) -> String {
        let parts: Vec<String> =
            self.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
        parts.join(", ")
    }

    /// Takes another cell in, as a group does with what is in it.
    pub(super) fn merge(&mut self, other: &Self) {
        for (state, count) in &other.states {
            *self.states.entry(*state).or_default() += count;
        }
        self.span(other.start, other.end, other.queued);
        self.is_open |= other.is_open;
        self.try_number = self.try_number.max(other.try_number);
        self.close();
    }

    fn span(&mut self, start: Option<Timestamp>, end: Option<Timestamp>, queued: Option<Timestamp>) {
        self.start = [self.start, start].into_iter().flatten().min();
        self.queued = [self.queued, queued].into_iter().flatten().min();
        self.end = [self.end, end].into_iter().flatten().max();
    }

    fn close(&mut self) {
        if self.is_open {
            self.end = None;
        }
    }

    fn add(&mut self, row: &TaskInstance) {
        *self.states.entry(row.state).or_default() += 1;
        self.is_mapped |= row.map_index.is_mapped();
        self.try_number = self.try_number.max(row.try_number);
        self.is_open |= row.start_date.is_some() && row.end_date.is_none();
        self.span(row.start_date, row.end_date, row.queued_at);
    }
}

/// The cells of a run.
pub(super) type Cells = BTreeMap<TaskId, Cell>;

/// The cells of several runs.
pub(super) async fn cells(
    tx: &mut dyn Tx,
    runs: &[DagRun],
) -> Result<BTreeMap<DagRunId, Cells>, MetastoreError> {
    let mut found: BTreeMap<DagRunId, Cells> = runs.iter().map(|run| (run.id, Cells::new())).collect();
    if runs.is_empty() {
        return Ok(found);
    }
    let of = |dag_run_ids| TaskInstanceFilter { dag_run_ids, ..TaskInstanceFilter::default() };
    let all = tx.task_instances(&of(runs.iter().map(|run| run.id).collect()), &Page::first(MAX_ROWS)).await?;
    if all.total <= u64::from(MAX_ROWS) {
        for row in &all.items {
            if let Some(cells) = found.get_mut(&row.dag_run_id) {
                cells.entry(row.task_id.clone()).or_default().add(row);
            }
        }
    } else {
        for run in runs {
            let rows = tx.task_instances(&of(vec![run.id]), &Page::first(MAX_ROWS)).await?;
            let cells = if rows.total <= u64::from(MAX_ROWS) {
                let mut cells = Cells::new();
                for row in &rows.items {
                    cells.entry(row.task_id.clone()).or_default().add(row);
                }
                cells
            } else {
                cells_of_large_run(tx, run).await?
            };
            found.insert(run.id, cells);
        }
    }
    for cell in found.values_mut().flat_map(BTreeMap::values_mut) {
        cell.close();
    }
    Ok(found)
}

/// A run with very many instances: tallies count mapped ones that are over, and those under way are read.
async fn cells_of_large_run(tx: &mut dyn Tx, run: &DagRun) -> Result<Cells, MetastoreError> {
    use TaskInstanceState as S;
    let mut cells = Cells::new();
    let unmapped = TaskInstanceFilter {
        dag_run_ids: vec![run.id],
        map_indexes: vec![MapIndex::UNMAPPED],
        ..TaskInstanceFilter::default()
    };
    for row in &tx.task_instances(&unmapped, &Page::first(MAX_ROWS)).await?.items {
        cells.entry(row.task_id.clone()).or_default().add(row);
    }
    let under_way = TaskInstanceFilter {
        dag_run_ids: vec![run.id],
        states: S::ALL.iter().copied().filter(|state| state.is_under_way()).collect(),
        ..TaskInstanceFilter::default()
    };
    let mut active = Cells::new();
    for row in tx.task_instances(&under_way, &Page::first(MAX_ROWS)).await?.items {
        if row.map_index.is_mapped() {
            active.entry(row.task_id.clone()).or_default().add(&row);
        }
    }
    for tally in tx.tallies(run.id, &[]).await? {
        let Some(length) = tally.expanded_length else { continue };
        let mut cell = active.remove(&tally.task_id).unwrap_or_default();
        cell.is_mapped = true;
        for (state, count) in tally.own.iter().filter(|(state, count)| state.is_finished() && **count > 0) {
            *cell.states.entry(*state).or_default() += count;
        }
        let waiting = length.saturating_sub(cell.total());
        if waiting > 0 {
            *cell.states.entry(S::None).or_default() += waiting;
            cell.is_open = true;
        }
        cell.start = cell.start.or(run.start_date);
        if !cell.is_open {
            cell.end = run.end_date;
        }
        cells.insert(tally.task_id, cell);
    }
    Ok(cells)
}
