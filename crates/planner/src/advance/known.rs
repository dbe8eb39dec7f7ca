//! Facts that are neither rows nor tallies, and the questions for what is not known yet.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use gust_model::{
    MapIndex, TaskId, TaskInstanceState,
    dag::{Dag, TaskIndex},
    record::{DagRun, TaskInstance, TaskTally, UpstreamTally},
};
use serde_json::Value;

use super::{
    facts::{FactReply, FactRequest, InstanceSelection, PreviousRunRequest},
    ledger::{Ledger, weigh},
};
use crate::expansion;

/// Something is not known yet; the question is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing;

pub(super) type Fact<T> = Result<T, Missing>;

/// Above so many indexes of a task, all of its rows are asked for.
const MOST_INDEXES: usize = 512;

/// Whom a task that skips others told to skip or to follow (`airflow/ti_deps/deps/not_previously_skipped_dep.py`).
#[derive(Debug)]
struct SkipNote {
    followed: Option<BTreeSet<String>>,
    skipped: Option<BTreeSet<String>>,
}

impl SkipNote {
    fn read(value: &Value) -> Self {
        // Airflow's older serialization wraps dicts.
        let body = value.get("__var").filter(|inner| inner.is_object()).unwrap_or(value);
        let names = |field: &str| {
            let list = body.get(field)?;
            let list = list.as_array().or_else(|| list.get("__var")?.as_array())?;
            Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        };
        Self { followed: names("followed"), skipped: names("skipped") }
    }

    fn skips(&self, task_id: &str) -> bool {
        match (&self.followed, &self.skipped) {
            (Some(followed), _) if !followed.contains(task_id) => true,
            (_, Some(skipped)) => skipped.contains(task_id),
            _ => false,
        }
    }
}

#[derive(Debug, Default)]
struct Previous {
    run: Option<DagRun>,
    is_first_of_backfill: bool,
    tallies: BTreeMap<TaskId, TaskTally>,
    covered_tallies: BTreeSet<TaskId>,
    with_history: BTreeSet<TaskId>,
    covered_history: BTreeSet<TaskId>,
}

/// Facts known so far.
#[derive(Debug, Default)]
pub(super) struct Known {
    map_lengths: BTreeMap<TaskIndex, Option<u32>>,
    return_value_counts: BTreeMap<TaskIndex, u32>,
    skip_notes: BTreeMap<(TaskIndex, MapIndex), Option<SkipNote>>,
    previous: Option<Previous>,
    latest_ended: BTreeMap<TaskInstanceState, Option<TaskInstance>>,
}

impl Known {
    /// Takes the answers to a request; what was asked and not answered does not exist.
    pub fn take(&mut self, dag: &Dag, ledger: &mut Ledger, request: &FactRequest, reply: FactReply) {
        let index = |task_id: &TaskId| dag.index_of(task_id.as_str());
        for tally in reply.tallies {
            if let Some(task) = index(&tally.task_id) {
                ledger.take_tally(task, tally);
            }
        }
        for task in request.tally_task_ids.iter().filter_map(index) {
            ledger.cover_tally(dag, task);
        }
        if request.all_tallies {
            ledger.cover_all_tallies(dag);
        }
        for row in reply.instances {
            ledger.take_row(dag, row);
        }
        for (task_id, selection) in &request.instances {
            if let Some(task) = index(task_id) {
                ledger.cover(task, selection);
            }
        }
        if request.all_instances {
            ledger.cover_all_rows();
        }
        for task in request.map_length_task_ids.iter().filter_map(index) {
            self.map_lengths.insert(task, None);
        }
        for (task_id, length) in reply.map_lengths {
            if let Some(task) = index(&task_id) {
                self.map_lengths.insert(task, Some(length));
            }
        }
        for task in request.return_value_count_task_ids.iter().filter_map(index) {
            self.return_value_counts.insert(task, 0);
        }
        for (task_id, count) in reply.return_value_counts {
            if let Some(task) = index(&task_id) {
                self.return_value_counts.insert(task, count);
            }
        }
        for (task_id, map_index) in &request.skip_xcoms {
            if let Some(task) = index(task_id) {
                self.skip_notes.insert((task, *map_index), None);
            }
        }
        for (task_id, map_index, value) in reply.skip_xcoms {
            if let Some(task) = index(&task_id) {
                self.skip_notes.insert((task, map_index), Some(SkipNote::read(&value)));
            }
        }
        if let Some(asked) = &request.previous_run {
            let previous = self.previous.get_or_insert_with(Previous::default);
            let given = reply.previous_run.unwrap_or_default();
            previous.run = given.run;
            previous.is_first_of_backfill = given.is_first_of_backfill;
            previous.tallies.extend(given.tallies.into_iter().map(|tally| (tally.task_id.clone(), tally)));
            previous.covered_tallies.extend(asked.tally_task_ids.iter().cloned());
            previous.with_history.extend(given.tasks_with_history);
            previous.covered_history.extend(asked.history_task_ids.iter().cloned());
        }
        if let Some(state) = request.latest_ended {
            self.latest_ended.insert(state, reply.latest_ended);
        }
    }
}

/// A look at everything known, which notes what is not.
pub(super) struct View<'a> {
    pub dag: &'a Dag,
    pub run: &'a DagRun,
    pub ledger: &'a Ledger,
    pub known: &'a Known,
    wanted: RefCell<FactRequest>,
}

impl<'a> View<'a> {
    pub fn new(dag: &'a Dag, run: &'a DagRun, ledger: &'a Ledger, known: &'a Known) -> Self {
        Self { dag, run, ledger, known, wanted: RefCell::default() }
    }

    /// What was asked and is not known.
    pub fn into_wanted(self) -> FactRequest {
        let mut wanted = self.wanted.into_inner();
        for selection in wanted.instances.values_mut() {
            if matches!(selection, InstanceSelection::Indexes(indexes) if indexes.len() > MOST_INDEXES) {
                *selection = InstanceSelection::All;
            }
        }
        wanted
    }

    fn want(&self, note: impl FnOnce(&mut FactRequest)) -> Missing {
        note(&mut self.wanted.borrow_mut());
        Missing
    }

    fn id(&self, task: TaskIndex) -> TaskId {
        self.dag.task(task).task_id.clone()
    }

    pub fn tally(&self, task: TaskIndex) -> Fact<&'a TaskTally> {
        self.ledger.tally(task).ok_or_else(|| {
            self.want(|request| {
                request.tally_task_ids.insert(self.id(task));
            })
        })
    }

    pub fn all_tallies(&self) -> Fact<()> {
        if self.ledger.knows_all_tallies() {
            return Ok(());
        }
        Err(self.want(|request| request.all_tallies = true))
    }

    pub fn rows(&self, task: TaskIndex) -> Fact<()> {
        if self.ledger.covers(task) {
            return Ok(());
        }
        Err(self.want(|request| {
            request.instances.insert(self.id(task), InstanceSelection::All);
        }))
    }

    pub fn undecided_rows(&self, task: TaskIndex) -> Fact<()> {
        if self.ledger.covers_undecided(task) {
            return Ok(());
        }
        Err(self.want(|request| match request.instances.get_mut(&self.id(task)) {
            Some(selection @ InstanceSelection::Indexes(_)) => *selection = InstanceSelection::All,
            Some(_) => {}
            None => {
                request.instances.insert(self.id(task), InstanceSelection::Undecided);
            }
        }))
    }

    /// The state at an index; `None` if there is no such instance.
    pub fn state_at(&self, task: TaskIndex, index: MapIndex) -> Fact<Option<TaskInstanceState>> {
        if self.ledger.covers_index(task, index) {
            return Ok(self.ledger.row(task, index).map(|row| row.now.state));
        }
        Err(self.want(|request| match request.instances.get_mut(&self.id(task)) {
            Some(InstanceSelection::Indexes(indexes)) => {
                indexes.insert(index);
            }
            Some(selection @ InstanceSelection::Undecided) => *selection = InstanceSelection::All,
            Some(InstanceSelection::All) => {}
            None => {
                request.instances.insert(self.id(task), InstanceSelection::Indexes(BTreeSet::from([index])));
            }
        }))
    }

    fn length_of(&self, producer: TaskIndex) -> Fact<Option<u64>> {
        if self.dag.task(producer).is_mapped() {
            // Not before all of its instances are over.
            let is_unfinished = self.tally(producer)?.own.keys().any(|state| !state.is_finished());
            if is_unfinished {
                return Ok(None);
            }
            return match self.known.return_value_counts.get(&producer) {
                Some(count) => Ok(Some(u64::from(*count))),
                None => Err(self.want(|request| {
                    request.return_value_count_task_ids.insert(self.id(producer));
                })),
            };
        }
        match self.known.map_lengths.get(&producer) {
            Some(length) => Ok(length.map(u64::from)),
            None => Err(self.want(|request| {
                request.map_length_task_ids.insert(self.id(producer));
            })),
        }
    }

    /// How many instances a task has that is mapped or within a mapped group, if known.
    pub fn task_count(&self, task: TaskIndex) -> Fact<Option<u64>> {
        expansion::task_count(self.dag, task, &mut |producer| self.length_of(producer))
    }

    pub fn group_count(&self, group: gust_model::dag::GroupIndex) -> Fact<Option<u64>> {
        expansion::group_count(self.dag, group, &mut |producer| self.length_of(producer))
    }

    /// Whether a task that skips others told this one to be skipped.
    pub fn is_told_to_skip(&self, parent: TaskIndex, index: MapIndex, task: TaskIndex) -> Fact<bool> {
        match self.known.skip_notes.get(&(parent, index)) {
            Some(note) => {
                Ok(note.as_ref().is_some_and(|note| note.skips(self.dag.task(task).task_id.as_str())))
            }
            None => Err(self.want(|request| {
                request.skip_xcoms.insert((self.id(parent), index));
            })),
        }
    }

    /// The instance in a state with the latest end, as the database has it.
    pub fn latest_ended(&self, state: TaskInstanceState) -> Fact<Option<&'a TaskInstance>> {
        match self.known.latest_ended.get(&state) {
            Some(row) => Ok(row.as_ref()),
            None => Err(self.want(|request| request.latest_ended = Some(state))),
        }
    }

    /// All of a task's instances, added up as upstreams.
    pub fn counts_of(&self, task: TaskIndex) -> Fact<UpstreamTally> {
        let is_setup = self.dag.task(task).is_setup;
        let mut counts = UpstreamTally::default();
        for (state, number) in &self.tally(task)?.own {
            weigh(&mut counts, *state, is_setup, |count| *count += number);
        }
        Ok(counts)
    }

    /// Whether the run before lets a task run that depends on it (`airflow/ti_deps/deps/prev_dagrun_dep.py`).
    pub fn past_allows(&self, task: TaskIndex) -> Fact<bool> {
        let definition = self.dag.task(task);
        let Some(logical_date) = self.run.logical_date.filter(|_| definition.depends_on_past) else {
            // A run that stands for no date has none before it.
            return Ok(true);
        };
        let previous = self.previous(task, logical_date)?;
        if self.run.backfill_id.is_some() && previous.is_first_of_backfill {
            return Ok(true);
        }
        let Some(run) = &previous.run else { return Ok(true) };
        let began_later =
            definition.start_date.zip(run.logical_date).is_some_and(|(start, date)| date < start);
        if self.dag.catchup && began_later {
            return Ok(true);
        }
        if !run.is_expanded {
            return Ok(false);
        }
        let succeeded = |task: TaskIndex| {
            previous.tallies.get(&self.dag.task(task).task_id).is_none_or(|tally| {
                tally
                    .own
                    .keys()
                    .all(|state| matches!(state, TaskInstanceState::Success | TaskInstanceState::Skipped))
            })
        };
        let existed = previous.tallies.get(&definition.task_id).is_some_and(|tally| !tally.own.is_empty());
        if !existed {
            return Ok(definition.ignore_first_depends_on_past
                && !previous.with_history.contains(&definition.task_id));
        }
        if !succeeded(task) {
            return Ok(false);
        }
        Ok(!definition.wait_for_downstream
            || self.dag.links(task).downstream.iter().all(|&downstream| succeeded(downstream)))
    }

    fn previous(&self, task: TaskIndex, before: gust_model::record::Timestamp) -> Fact<&'a Previous> {
        let definition = self.dag.task(task);
        let downstream: &[TaskIndex] =
            if definition.wait_for_downstream { &self.dag.links(task).downstream } else { &[] };
        let tallies = || std::iter::once(task).chain(downstream.iter().copied()).map(|task| self.id(task));
        let is_covered = |previous: &Previous| {
            tallies().all(|task_id| previous.covered_tallies.contains(&task_id))
                && (!definition.ignore_first_depends_on_past
                    || previous.covered_history.contains(&definition.task_id))
        };
        match &self.known.previous {
            Some(previous) if is_covered(previous) => Ok(previous),
            _ => Err(self.want(|request| {
                let asked = request.previous_run.get_or_insert_with(|| PreviousRunRequest {
                    before,
                    is_automated_only: self.dag.catchup,
                    tally_task_ids: BTreeSet::new(),
                    history_task_ids: BTreeSet::new(),
                });
                asked.tally_task_ids.extend(tallies());
                if definition.ignore_first_depends_on_past {
                    asked.history_task_ids.insert(definition.task_id.clone());
                }
            })),
        }
    }
}
