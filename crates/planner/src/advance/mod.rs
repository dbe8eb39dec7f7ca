//! Advancing a run: from what changed to what may run next, and to the run's end.
//!
//! A pass goes in waves, as Airflow's scheduler goes in passes: each wave looks at all task instances that may be
//! decided against the facts at its beginning, and what it decides (an expansion, a skip, the success of an operator
//! that does nothing) makes the next. So the order of the tasks in the file decides nothing.
//!
//! Facts are asked for when an evaluation meets one that is not known. A wave is evaluated to its end first, so that
//! one request asks for all that it needs; it is then evaluated again, which changes nothing but what is known.

mod conclude;
mod evaluate;
mod facts;
mod known;
mod ledger;
mod stop;
mod wave;

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use gust_model::{
    DagRunState, MapIndex, TaskInstanceState,
    dag::{Dag, TaskIndex},
    record::{DagRun, TaskInstance, Timestamp, Trigger},
};
use uuid::Uuid;

pub use facts::{FactReply, FactRequest, InstanceSelection, PreviousRunReply, PreviousRunRequest};

use self::{
    evaluate::{Which, is_due},
    known::{Known, Missing, View},
    ledger::Ledger,
};
use crate::{
    expansion, new_instance, next_retry_at,
    plan::{Plan, RunCallback, RunChange, RunEnd},
};

/// What a pass may be told beside facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdvanceSettings {
    /// How long a task that asks for the success of all before it, one of which was skipped, waits for others of them
    /// that are under way, since one that fails outweighs the skip. Airflow's scheduler takes about as long to see it.
    pub skip_grace: TimeDelta,
}

impl Default for AdvanceSettings {
    fn default() -> Self {
        Self { skip_grace: TimeDelta::seconds(1) }
    }
}

/// What a pass says when it is asked how far it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Poll {
    /// It needs these facts; [`Advance::supply`] them and ask again.
    Need(FactRequest),
    /// It is done.
    Done(Box<Plan>),
}

/// Where a pass is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Rows and tallies that the pass begins with are still to be read.
    Begin,
    /// The time limit has passed: everything left is to be skipped.
    TimeOut,
    /// A task failed in a DAG that then stops.
    Stop,
    /// Waves.
    Waves,
    /// No wave decides anything any more.
    Conclude,
    /// Nothing is left but tallies that were changed unseen.
    Finish,
}

/// A pass over one run.
///
/// The caller holds the run's row lock from before it reads the run until its transaction ends.
pub struct Advance<'a> {
    dag: &'a Dag,
    run: DagRun,
    now: Timestamp,
    settings: AdvanceSettings,
    /// The earliest end of a grace that this pass gave.
    held_until: Option<Timestamp>,
    fresh_id: Box<dyn FnMut() -> Uuid + Send + 'a>,
    phase: Phase,
    changed_rows: Vec<TaskInstance>,
    ledger: Ledger,
    known: Known,
    asked: FactRequest,
    work: BTreeMap<TaskIndex, Which>,
    /// Tasks of which an instance ended or was reset in this pass.
    changed_tasks: BTreeSet<TaskIndex>,
    /// Whether everything is looked at, since anything may have changed.
    is_full: bool,
    /// Whether the last full look was there to make sure that nothing can run.
    is_probe: bool,
    /// Whether the run may not be looked at yet, so that all of it has to be later.
    is_put_off: bool,
    /// Tasks that failed for good in a DAG that then stops.
    stopping: BTreeSet<TaskIndex>,
    triggers: Vec<Trigger>,
    scheduled_any: bool,
    freed_slots: bool,
    ended: Option<RunEnd>,
    callback: Option<RunCallback>,
}

impl std::fmt::Debug for Advance<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Advance")
            .field("run", &self.run.id)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl<'a> Advance<'a> {
    /// Begins a pass.
    ///
    /// `changed` are the run's rows that are dirty, and those up for retry or reschedule whose `due_at` has come.
    /// `dag` is the graph of the run's DAG version. `fresh_id` makes ids for rows that the pass adds.
    #[must_use]
    pub fn begin(
        dag: &'a Dag,
        run: DagRun,
        changed: Vec<TaskInstance>,
        now: Timestamp,
        settings: AdvanceSettings,
        fresh_id: impl FnMut() -> Uuid + Send + 'a,
    ) -> Self {
        let ledger = Ledger::new(run.id, run.unfinished_count, run.under_way_count);
        Self {
            dag,
            run,
            now,
            settings,
            held_until: None,
            fresh_id: Box::new(fresh_id),
            phase: Phase::Begin,
            changed_rows: changed,
            ledger,
            known: Known::default(),
            asked: FactRequest::default(),
            work: BTreeMap::new(),
            changed_tasks: BTreeSet::new(),
            is_full: false,
            is_probe: false,
            is_put_off: false,
            stopping: BTreeSet::new(),
            triggers: Vec::new(),
            scheduled_any: false,
            freed_slots: false,
            ended: None,
            callback: None,
        }
    }

    /// Goes on as far as the known facts reach.
    pub fn poll(&mut self) -> Poll {
        loop {
            let step = match self.phase {
                Phase::Begin => self.begin_pass(),
                Phase::TimeOut => self.time_out(),
                Phase::Stop => self.stop_others(),
                Phase::Waves => self.wave(),
                Phase::Conclude => self.conclude(),
                Phase::Finish => {
                    let unknown: BTreeSet<_> = self
                        .ledger
                        .unknown_changed_tallies()
                        .map(|task| self.dag.task(task).task_id.clone())
                        .collect();
                    if unknown.is_empty() {
                        return Poll::Done(Box::new(self.finish()));
                    }
                    self.asked = FactRequest { tally_task_ids: unknown, ..FactRequest::default() };
                    Err(Missing)
                }
            };
            if step.is_err() {
                return Poll::Need(self.asked.clone());
            }
        }
    }

    /// Takes the answers to the last request; what was asked and is not among them does not exist.
    pub fn supply(&mut self, reply: FactReply) {
        let asked = std::mem::take(&mut self.asked);
        self.known.take(self.dag, &mut self.ledger, &asked, reply);
    }

    /// Looks at everything known with `look`; what is missing becomes the next request.
    fn look<T>(&mut self, look: impl FnOnce(&View<'_>) -> Result<T, Missing>) -> Result<T, Missing> {
        let view = View::new(self.dag, &self.run, &self.ledger, &self.known);
        let result = look(&view);
        if result.is_err() {
            self.asked = view.into_wanted();
        }
        result
    }

    fn read_all_rows(&mut self) -> Result<(), Missing> {
        if self.ledger.covers_all_rows() {
            return Ok(());
        }
        self.asked = FactRequest { all_instances: true, ..FactRequest::default() };
        Err(Missing)
    }

    // ----- begin

    fn begin_pass(&mut self) -> Result<(), Missing> {
        if !self.run.is_expanded {
            self.make_task_instances();
        } else if self.run.is_dirty {
            self.read_all_rows()?;
            self.rebuild();
        } else {
            let changed = std::mem::take(&mut self.changed_rows);
            self.account_changed(changed);
            // A grace is over: it is not noted whose.
            if self.run.due_at.is_some_and(|due| due <= self.now) {
                self.look_at_everything();
            }
        }
        self.remove_orphans();
        let is_early = self.run.logical_date.is_some_and(|date| date > self.now);
        self.is_put_off =
            self.run.state == DagRunState::Queued || (self.run.state == DagRunState::Running && is_early);
        self.phase = if self.run.state != DagRunState::Running {
            // What ended after its run did is added up; nothing follows from it.
            Phase::Finish
        } else if self.time_limit().is_some_and(|limit| limit < self.now) {
            Phase::TimeOut
        } else if is_early {
            Phase::Finish
        } else if self.stopping.is_empty() {
            Phase::Waves
        } else {
            Phase::Stop
        };
        Ok(())
    }

    /// When the run takes too long.
    fn time_limit(&self) -> Option<Timestamp> {
        self.run.start_date?.checked_add_signed(self.dag.dagrun_timeout?)
    }

    /// Makes all task instances of a run (`airflow/models/dagrun.py: verify_integrity`).
    fn make_task_instances(&mut self) {
        self.ledger.unfinished_count = 0;
        self.ledger.under_way_count = 0;
        self.ledger.zero_tallies(self.dag);
        self.ledger.cover_all_rows();
        for task in self.dag.task_indexes() {
            self.make_instances_of(task);
        }
        self.look_at_everything();
    }

    /// Makes a task's instances, if the run's date is within the task's: one for each item of what it is mapped over
    /// where the file says that, one otherwise.
    fn make_instances_of(&mut self, task: TaskIndex) {
        let definition = self.dag.task(task);
        let is_backfill = self.run.run_type == gust_model::DagRunType::Backfill;
        let date = self.run.logical_date;
        let begins_later = definition.start_date.zip(date).is_some_and(|(start, date)| start > date);
        let ended_before = definition.end_date.zip(date).is_some_and(|(end, date)| date > end);
        if !is_backfill && (begins_later || ended_before) {
            return;
        }
        let count = if definition.needs_expansion {
            let never: Result<Option<u64>, std::convert::Infallible> =
                expansion::task_count(self.dag, task, &mut |_| Ok(None));
            never.ok().flatten().and_then(|count| i32::try_from(count).ok()).filter(|count| *count > 0)
        } else {
            None
        };
        match count {
            Some(count) => {
                for index in 0..count {
                    self.add_instance(task, MapIndex(index));
                }
                self.ledger.set_expanded_length(task, u32::try_from(count).ok());
            }
            None => self.add_instance(task, MapIndex::UNMAPPED),
        }
    }

    fn add_instance(&mut self, task: TaskIndex, index: MapIndex) {
        let id = gust_model::TaskInstanceId((self.fresh_id)());
        let row = new_instance(self.dag, task, &self.run, index, id, self.now);
        self.ledger.insert_row(task, row);
        self.ledger.account(self.dag, task, None, Some(TaskInstanceState::None));
    }

    /// Adds everything up anew from the rows, so that no tally can stay wrong, and fits the rows to the graph if the
    /// run follows another version than they do.
    fn rebuild(&mut self) {
        for row in std::mem::take(&mut self.changed_rows) {
            self.ledger.take_row(self.dag, row);
        }
        self.ledger.unfinished_count = 0;
        self.ledger.under_way_count = 0;
        self.ledger.zero_tallies(self.dag);
        let rows: Vec<(TaskIndex, MapIndex)> =
            self.ledger.all_rows().map(|(task, index, _)| (task, index)).collect();
        let version = self.run.dag_version_id;
        let has_other_version = self
            .ledger
            .all_rows()
            .any(|(_, _, row)| row.now.dag_version_id != version && !row.now.state.is_finished());
        if has_other_version {
            self.fit_to_graph(&rows);
        }
        let mut lengths: BTreeMap<TaskIndex, u32> = BTreeMap::new();
        for (task, index) in rows {
            let Some(row) = self.ledger.row(task, index) else { continue };
            let (from, to) = (row.now.accounted_state, row.now.state);
            // What an executor or a worker moved on counts the same, and its row is theirs: it is not written.
            if !row.now.is_dirty && from.is_under_way() && to.is_under_way() {
                self.ledger.account(self.dag, task, None, Some(from));
            } else {
                let is_written = from != to || row.now.is_dirty;
                self.ledger.account(self.dag, task, None, Some(to));
                if is_written {
                    self.account_row(task, index, from, to, false);
                }
            }
            if to != TaskInstanceState::Removed
                && let Ok(at) = u32::try_from(index.0)
            {
                let length = lengths.entry(task).or_insert(0);
                *length = (*length).max(at + 1);
            }
        }
        for (task, length) in lengths {
            self.ledger.set_expanded_length(task, Some(length));
        }
        if has_other_version {
            let missing: Vec<TaskIndex> =
                self.dag.task_indexes().filter(|task| self.ledger.rows_of(*task).next().is_none()).collect();
            for task in missing {
                self.make_instances_of(task);
            }
        }
        for row in self.ledger.orphans_mut() {
            let state = row.now.state;
            row.now.accounted_state = state;
        }
        let orphans: Vec<TaskInstanceState> =
            self.ledger.orphans_mut().iter().map(|row| row.now.state).collect();
        for state in orphans {
            self.ledger.account_run(None, Some(state));
        }
        self.look_at_everything();
    }

    /// Takes back what was removed and is there again, and moves what is left to do to the run's version
    /// (`airflow/models/dagrun.py: _check_for_removed_or_restored_tasks`).
    fn fit_to_graph(&mut self, rows: &[(TaskIndex, MapIndex)]) {
        let version = self.run.dag_version_id;
        for &(task, index) in rows {
            let Some(row) = self.ledger.row_mut(task, index) else { continue };
            if row.now.state == TaskInstanceState::Removed {
                row.edit().state = TaskInstanceState::None;
            }
            if !row.now.state.is_finished() && row.now.dag_version_id != version {
                row.edit().dag_version_id = version;
            }
            let count: Result<Option<u64>, std::convert::Infallible> =
                expansion::task_count(self.dag, task, &mut |_| Ok(None));
            let literal = count.ok().flatten().filter(|_| self.dag.task(task).needs_expansion);
            let is_one_too_many = match (literal, u64::try_from(index.0)) {
                (Some(count), Ok(at)) => at >= count,
                (Some(count), Err(_)) => count > 0,
                (None, _) => false,
            };
            if is_one_too_many && let Some(row) = self.ledger.row_mut(task, index) {
                row.edit().state = TaskInstanceState::Removed;
            }
        }
    }

    /// Adds up what changed, and notes what has to be looked at because of it.
    fn account_changed(&mut self, changed: Vec<TaskInstance>) {
        for row in changed {
            let (index, from, to) = (row.map_index, row.accounted_state, row.state);
            let task = self.dag.index_of(row.task_id.as_str());
            self.ledger.take_row(self.dag, row);
            match task {
                Some(task) => self.account_row(task, index, from, to, true),
                None => self.ledger.account_run(Some(from), Some(to)),
            }
        }
    }

    fn account_row(
        &mut self,
        task: TaskIndex,
        index: MapIndex,
        from: TaskInstanceState,
        to: TaskInstanceState,
        adds_up: bool,
    ) {
        if adds_up {
            self.ledger.account(self.dag, task, Some(from), Some(to));
        }
        let (dag, now, logical_date) = (self.dag, self.now, self.run.logical_date);
        let Some(row) = self.ledger.row_mut(task, index) else { return };
        let instance = row.edit();
        instance.accounted_state = to;
        instance.is_dirty = false;
        if to == TaskInstanceState::UpForRetry && instance.due_at.is_none() {
            let ended_at = instance.end_date.unwrap_or(now);
            instance.due_at = Some(next_retry_at(
                dag.task(task),
                &dag.dag_id,
                logical_date,
                instance.try_number,
                instance.retry_delay_override,
                ended_at,
            ));
        }
        let is_ready = to == TaskInstanceState::None || is_due(to, instance.due_at, now);
        if is_ready {
            self.look_at(task, Which::Indexes(BTreeSet::from([index])));
        }
        if from.is_finished() != to.is_finished() || (to.is_finished() && from != to) {
            self.note_change(task, index);
        }
        if to == TaskInstanceState::Failed && from != to && dag.fail_fast {
            self.stopping.insert(task);
        }
    }

    /// Takes instances of tasks that the DAG no longer has out of the run.
    fn remove_orphans(&mut self) {
        let mut removed = Vec::new();
        for row in self.ledger.orphans_mut() {
            if row.now.state != TaskInstanceState::Removed {
                removed.push(row.now.state);
                row.edit().state = TaskInstanceState::Removed;
            }
            if row.now.is_dirty || row.now.accounted_state != row.now.state {
                let instance = row.edit();
                instance.accounted_state = instance.state;
                instance.is_dirty = false;
            }
        }
        for state in removed {
            self.ledger.account_run(Some(state), Some(TaskInstanceState::Removed));
        }
    }

    // ----- what is to be looked at

    fn look_at(&mut self, task: TaskIndex, which: Which) {
        match self.work.entry(task) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(which);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => entry.get_mut().merge(which),
        }
    }

    fn look_at_everything(&mut self) {
        self.is_full = true;
        self.work = self.dag.task_indexes().map(|task| (task, Which::All)).collect();
    }

    /// An instance of a task ended, was reset, or became another number of instances: whoever waits for it is to be
    /// looked at.
    fn note_change(&mut self, task: TaskIndex, index: MapIndex) {
        self.changed_tasks.insert(task);
        let dag = self.dag;
        let links = dag.links(task);
        for &waiting in &links.evaluate_on_change {
            let shared =
                links.index_downstream.iter().find(|(other, _)| *other == waiting).map(|(_, group)| *group);
            let is_by_index = index.is_mapped()
                && shared.is_some_and(|group| {
                    !dag.is_further_mapped_inside(task, group)
                        && !dag.is_further_mapped_inside(waiting, group)
                });
            let which = if is_by_index {
                Which::Indexes(BTreeSet::from([MapIndex::UNMAPPED, index]))
            } else {
                Which::All
            };
            self.look_at(waiting, which);
        }
    }

    // ----- the end

    fn finish(&mut self) -> Plan {
        let run_id = self.run.id;
        let counts = (self.ledger.unfinished_count, self.ledger.under_way_count);
        let rows_due = self.ledger.earliest_due();
        let ledger = std::mem::replace(&mut self.ledger, Ledger::new(run_id, 0, 0));
        let end = ledger.finish();
        let is_over = self.ended.is_some() || self.run.state.is_finished();
        let waits_for_date = self.run.logical_date.filter(|date| *date > self.now);
        let earlier = self.run.due_at.filter(|due| *due > self.now);
        let due_at = if is_over {
            None
        } else {
            self.time_limit().into_iter().chain(waits_for_date).chain(self.held_until).chain(earlier).min()
        };
        let state = match self.ended {
            Some(RunEnd::Success) => DagRunState::Success,
            Some(_) => DagRunState::Failed,
            None => self.run.state,
        };
        let checks_consecutive_failures = state == DagRunState::Failed
            && self.ended == Some(RunEnd::TaskFailure)
            && self.dag.max_consecutive_failed_dag_runs > 0;
        Plan {
            run: RunChange {
                state,
                start_date: self.run.start_date,
                end_date: if self.ended.is_some() { Some(self.now) } else { self.run.end_date },
                unfinished_count: counts.0,
                under_way_count: counts.1,
                is_expanded: true,
                is_dirty: self.is_put_off && !is_over,
                due_at,
                last_scheduling_decision: Some(self.now),
            },
            changes: end.changes,
            inserts: end.inserts,
            deletes: end.deletes,
            tallies: end.tallies,
            triggers: std::mem::take(&mut self.triggers),
            callback: self.callback.take(),
            ended: self.ended,
            wakes_in_next_run: self.wakes_in_next_run(),
            scheduled_any: self.scheduled_any,
            freed_slots: self.freed_slots,
            checks_consecutive_failures,
            next_due_at: if is_over { None } else { due_at.into_iter().chain(rows_due).min() },
        }
    }

    /// Tasks that may have waited in the next run for what changed here.
    fn wakes_in_next_run(&self) -> Vec<gust_model::TaskId> {
        if self.run.logical_date.is_none() {
            return Vec::new();
        }
        let waits = |task: TaskIndex| {
            let definition = self.dag.task(task);
            definition.depends_on_past
                && (self.changed_tasks.contains(&task)
                    || (definition.wait_for_downstream
                        && self
                            .dag
                            .links(task)
                            .downstream
                            .iter()
                            .any(|next| self.changed_tasks.contains(next))))
        };
        self.dag
            .task_indexes()
            .filter(|task| waits(*task))
            .map(|task| self.dag.task(task).task_id.clone())
            .collect()
    }
}
