//! The rows and tallies of a pass: as they were read, as they are now, and what was added up.

use std::collections::{BTreeMap, BTreeSet};

use gust_model::{
    DagRunId, MapIndex, TaskInstanceId, TaskInstanceState,
    dag::{Dag, TaskIndex},
    record::{TaskInstance, TaskTally, Timestamp, UpstreamTally},
};

use super::facts::InstanceSelection;
use crate::plan::InstanceChange;

/// A task instance in a pass.
#[derive(Debug)]
pub(super) struct Row {
    /// As it is now.
    pub now: TaskInstance,
    /// As it was read, once it was changed. None for a row that is new or as it was read.
    before: Option<Box<TaskInstance>>,
    is_new: bool,
    /// Whether it is written even if nothing but its accounting changed.
    is_touched: bool,
}

impl Row {
    fn read(row: TaskInstance) -> Self {
        Self { now: row, before: None, is_new: false, is_touched: false }
    }

    pub fn new(row: TaskInstance) -> Self {
        Self { now: row, before: None, is_new: true, is_touched: true }
    }

    /// The row for changing it.
    pub fn edit(&mut self) -> &mut TaskInstance {
        if !self.is_new && self.before.is_none() {
            self.before = Some(Box::new(self.now.clone()));
        }
        self.is_touched = true;
        &mut self.now
    }

    fn change(&self) -> InstanceChange {
        let now = &self.now;
        let before = self.before.as_deref().unwrap_or(now);
        InstanceChange {
            id: now.id,
            change_seq: before.change_seq,
            state: now.state,
            map_index: changed(&before.map_index, &now.map_index),
            try_number: changed(&before.try_number, &now.try_number),
            takes_back: before.epoch != now.epoch,
            scheduled_at: changed(&before.scheduled_at, &now.scheduled_at).flatten(),
            start_date: changed(&before.start_date, &now.start_date).flatten(),
            end_date: changed(&before.end_date, &now.end_date).flatten(),
            due_at: changed(&before.due_at, &now.due_at),
            trigger_id: changed(&before.trigger_id, &now.trigger_id).flatten(),
            resume: changed(&before.next_method, &now.next_method)
                .flatten()
                .map(|method| (method, now.next_kwargs.clone())),
            dag_version_id: changed(&before.dag_version_id, &now.dag_version_id),
        }
    }
}

fn changed<T: PartialEq + Clone>(before: &T, now: &T) -> Option<T> {
    (before != now).then(|| now.clone())
}

/// Which rows of a task are known.
#[derive(Debug, Default)]
struct Coverage {
    all: bool,
    undecided: bool,
    indexes: BTreeSet<MapIndex>,
}

/// A change of a tally, kept until the tally is known.
#[derive(Debug, Clone, Copy)]
enum Step {
    Own { from: Option<TaskInstanceState>, to: Option<TaskInstanceState> },
    Upstream { from: Option<TaskInstanceState>, to: Option<TaskInstanceState>, is_setup: bool },
    Expanded(Option<u32>),
}

#[derive(Debug, Default)]
struct TallySlot {
    known: Option<TaskTally>,
    steps: Vec<Step>,
    is_changed: bool,
}

/// Rows, tallies and the run's two counts.
#[derive(Debug)]
pub(super) struct Ledger {
    dag_run_id: DagRunId,
    rows: BTreeMap<TaskIndex, BTreeMap<MapIndex, Row>>,
    /// Rows of tasks that the DAG no longer has.
    orphans: Vec<Row>,
    deletes: Vec<TaskInstanceId>,
    coverage: BTreeMap<TaskIndex, Coverage>,
    covers_all: bool,
    /// Every row that was given, so that none is taken twice.
    seen: BTreeSet<TaskInstanceId>,
    tallies: BTreeMap<TaskIndex, TallySlot>,
    knows_all_tallies: bool,
    pub unfinished_count: i64,
    pub under_way_count: i64,
}

impl Ledger {
    pub fn new(dag_run_id: DagRunId, unfinished_count: i64, under_way_count: i64) -> Self {
        Self {
            dag_run_id,
            rows: BTreeMap::new(),
            orphans: Vec::new(),
            deletes: Vec::new(),
            coverage: BTreeMap::new(),
            covers_all: false,
            seen: BTreeSet::new(),
            tallies: BTreeMap::new(),
            knows_all_tallies: false,
            unfinished_count,
            under_way_count,
        }
    }

    // ----- rows

    /// Takes a row that was read; one that was given before stays as it is here.
    pub fn take_row(&mut self, dag: &Dag, row: TaskInstance) {
        if !self.seen.insert(row.id) {
            return;
        }
        match dag.index_of(row.task_id.as_str()) {
            Some(task) => {
                self.rows.entry(task).or_default().insert(row.map_index, Row::read(row));
            }
            None => self.orphans.push(Row::read(row)),
        }
    }

    pub fn insert_row(&mut self, task: TaskIndex, row: TaskInstance) {
        self.seen.insert(row.id);
        self.rows.entry(task).or_default().insert(row.map_index, Row::new(row));
    }

    /// Notes that a request for rows was answered.
    pub fn cover(&mut self, task: TaskIndex, selection: &InstanceSelection) {
        let coverage = self.coverage.entry(task).or_default();
        match selection {
            InstanceSelection::All => coverage.all = true,
            InstanceSelection::Undecided => coverage.undecided = true,
            InstanceSelection::Indexes(indexes) => coverage.indexes.extend(indexes),
        }
    }

    pub fn cover_all_rows(&mut self) {
        self.covers_all = true;
    }

    pub fn covers_all_rows(&self) -> bool {
        self.covers_all
    }

    /// Whether all rows of a task are known.
    pub fn covers(&self, task: TaskIndex) -> bool {
        self.covers_all || self.coverage.get(&task).is_some_and(|coverage| coverage.all)
    }

    pub fn covers_undecided(&self, task: TaskIndex) -> bool {
        self.covers(task) || self.coverage.get(&task).is_some_and(|coverage| coverage.undecided)
    }

    /// Whether it is known what a task has at an index, if anything.
    pub fn covers_index(&self, task: TaskIndex, index: MapIndex) -> bool {
        self.row(task, index).is_some()
            || self.covers(task)
            || self.coverage.get(&task).is_some_and(|coverage| coverage.indexes.contains(&index))
    }

    pub fn row(&self, task: TaskIndex, index: MapIndex) -> Option<&Row> {
        self.rows.get(&task)?.get(&index)
    }

    pub fn row_mut(&mut self, task: TaskIndex, index: MapIndex) -> Option<&mut Row> {
        self.rows.get_mut(&task)?.get_mut(&index)
    }

    /// The known rows of a task, by index.
    pub fn rows_of(&self, task: TaskIndex) -> impl Iterator<Item = (MapIndex, &Row)> {
        self.rows.get(&task).into_iter().flatten().map(|(index, row)| (*index, row))
    }

    /// All known rows of tasks that the DAG has.
    pub fn all_rows(&self) -> impl Iterator<Item = (TaskIndex, MapIndex, &Row)> {
        self.rows.iter().flat_map(|(task, rows)| rows.iter().map(|(index, row)| (*task, *index, row)))
    }

    pub fn orphans_mut(&mut self) -> &mut [Row] {
        &mut self.orphans
    }

    /// Makes the unexpanded row of a task its first index.
    pub fn renumber_unexpanded(&mut self, task: TaskIndex) {
        let Some(rows) = self.rows.get_mut(&task) else { return };
        if let Some(mut row) = rows.remove(&MapIndex::UNMAPPED) {
            row.edit().map_index = MapIndex(0);
            rows.insert(MapIndex(0), row);
        }
    }

    /// Drops the unexpanded row of a task.
    pub fn delete_unexpanded(&mut self, task: TaskIndex) {
        let Some(rows) = self.rows.get_mut(&task) else { return };
        if let Some(row) = rows.remove(&MapIndex::UNMAPPED)
            && !row.is_new
        {
            self.deletes.push(row.now.id);
        }
    }

    // ----- tallies

    pub fn take_tally(&mut self, task: TaskIndex, tally: TaskTally) {
        let slot = self.tallies.entry(task).or_default();
        if slot.known.is_none() {
            slot.known = Some(tally);
            for step in std::mem::take(&mut slot.steps) {
                apply(slot, step);
            }
        }
    }

    /// Makes all tallies known and zero, for adding everything up anew.
    pub fn zero_tallies(&mut self, dag: &Dag) {
        for task in dag.task_indexes() {
            let tally = self.empty_tally(dag, task);
            self.tallies.insert(task, TallySlot { known: Some(tally), steps: Vec::new(), is_changed: true });
        }
        self.knows_all_tallies = true;
    }

    /// Notes that a request for tallies was answered; one that does not exist is empty.
    pub fn cover_tally(&mut self, dag: &Dag, task: TaskIndex) {
        if self.tally(task).is_none() {
            let tally = self.empty_tally(dag, task);
            self.take_tally(task, tally);
        }
    }

    pub fn cover_all_tallies(&mut self, dag: &Dag) {
        for task in dag.task_indexes() {
            self.cover_tally(dag, task);
        }
        self.knows_all_tallies = true;
    }

    pub fn knows_all_tallies(&self) -> bool {
        self.knows_all_tallies
    }

    fn empty_tally(&self, dag: &Dag, task: TaskIndex) -> TaskTally {
        TaskTally {
            dag_run_id: self.dag_run_id,
            task_id: dag.task(task).task_id.clone(),
            expanded_length: None,
            own: BTreeMap::new(),
            upstream: UpstreamTally::default(),
        }
    }

    pub fn tally(&self, task: TaskIndex) -> Option<&TaskTally> {
        self.tallies.get(&task)?.known.as_ref()
    }

    /// Tallies that were changed but are not known yet.
    pub fn unknown_changed_tallies(&self) -> impl Iterator<Item = TaskIndex> + '_ {
        self.tallies
            .iter()
            .filter(|(_, slot)| slot.known.is_none() && !slot.steps.is_empty())
            .map(|(task, _)| *task)
    }

    fn step(&mut self, task: TaskIndex, step: Step) {
        let slot = self.tallies.entry(task).or_default();
        if slot.known.is_some() {
            apply(slot, step);
        } else {
            slot.steps.push(step);
        }
    }

    /// Adds up that an instance of a task went from one state to another; `None` is that it was not, or is no more.
    pub fn account(
        &mut self,
        dag: &Dag,
        task: TaskIndex,
        from: Option<TaskInstanceState>,
        to: Option<TaskInstanceState>,
    ) {
        if from == to {
            return;
        }
        self.account_run(from, to);
        self.step(task, Step::Own { from, to });
        let weighs = |state: Option<TaskInstanceState>| {
            state.map(|state| if state.is_finished() { Some(state) } else { None })
        };
        if weighs(from) != weighs(to) {
            let is_setup = dag.task(task).is_setup;
            for &downstream in &dag.links(task).tallied_downstream {
                self.step(downstream, Step::Upstream { from, to, is_setup });
            }
        }
    }

    /// Adds up to the run's counts alone, as for a task that the DAG no longer has.
    pub fn account_run(&mut self, from: Option<TaskInstanceState>, to: Option<TaskInstanceState>) {
        let unfinished =
            |state: Option<TaskInstanceState>| i64::from(state.is_some_and(|state| !state.is_finished()));
        let under_way =
            |state: Option<TaskInstanceState>| i64::from(state.is_some_and(TaskInstanceState::is_under_way));
        self.unfinished_count += unfinished(to) - unfinished(from);
        self.under_way_count += under_way(to) - under_way(from);
    }

    pub fn set_expanded_length(&mut self, task: TaskIndex, length: Option<u32>) {
        self.step(task, Step::Expanded(length));
    }

    // ----- the end

    /// What is to be written.
    pub fn finish(self) -> LedgerEnd {
        let mut end = LedgerEnd { deletes: self.deletes, ..LedgerEnd::default() };
        let rows = self.rows.into_values().flat_map(BTreeMap::into_values).chain(self.orphans);
        for mut row in rows {
            if row.is_new {
                row.now.accounted_state = row.now.state;
                end.inserts.push(row.now);
            } else if row.is_touched {
                end.changes.push(row.change());
            }
        }
        end.changes.sort_by_key(|change| change.id);
        end.tallies =
            self.tallies.into_values().filter(|slot| slot.is_changed).filter_map(|slot| slot.known).collect();
        end
    }

    /// The earliest moment at which a row that this pass touched moves on by itself.
    pub fn earliest_due(&self) -> Option<Timestamp> {
        self.all_rows().filter(|(_, _, row)| row.is_touched).filter_map(|(_, _, row)| row.now.due_at).min()
    }
}

/// What a ledger comes to.
#[derive(Debug, Default)]
pub(super) struct LedgerEnd {
    pub changes: Vec<InstanceChange>,
    pub inserts: Vec<TaskInstance>,
    pub deletes: Vec<TaskInstanceId>,
    pub tallies: Vec<TaskTally>,
}

fn apply(slot: &mut TallySlot, step: Step) {
    let Some(tally) = slot.known.as_mut() else { return };
    slot.is_changed = true;
    match step {
        Step::Expanded(length) => tally.expanded_length = length,
        Step::Own { from, to } => {
            if let Some(state) = from {
                let count = tally.own.entry(state).or_insert(0);
                *count = count.saturating_sub(1);
                if *count == 0 {
                    tally.own.remove(&state);
                }
            }
            if let Some(state) = to {
                *tally.own.entry(state).or_insert(0) += 1;
            }
        }
        Step::Upstream { from, to, is_setup } => {
            if let Some(state) = from {
                weigh(&mut tally.upstream, state, is_setup, |count| *count = count.saturating_sub(1));
            }
            if let Some(state) = to {
                weigh(&mut tally.upstream, state, is_setup, |count| *count += 1);
            }
        }
    }
}

/// Applies `change` to every count of `tally` that an instance in `state` is part of.
pub(super) fn weigh(
    tally: &mut UpstreamTally,
    state: TaskInstanceState,
    is_setup: bool,
    mut change: impl FnMut(&mut u32),
) {
    change(&mut tally.total);
    if is_setup {
        change(&mut tally.setup_total);
    }
    match state {
        TaskInstanceState::Success => {
            change(&mut tally.success);
            if is_setup {
                change(&mut tally.success_setup);
            }
        }
        TaskInstanceState::Skipped => {
            change(&mut tally.skipped);
            if is_setup {
                change(&mut tally.skipped_setup);
            }
        }
        TaskInstanceState::Failed => change(&mut tally.failed),
        TaskInstanceState::UpstreamFailed => change(&mut tally.upstream_failed),
        TaskInstanceState::Removed => change(&mut tally.removed),
        _ => {}
    }
}
