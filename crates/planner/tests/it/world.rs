//! A run in memory: what a metastore keeps of it, and workers whose tasks come to what the test says.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{TimeDelta, TimeZone, Utc};
use gust_model::{
    DagRunId, DagRunState, DagRunType, DagVersionId, MapIndex, RunId, TaskId, TaskInstanceId,
    TaskInstanceState, TriggeredBy,
    dag::Dag,
    record::{DagRun, TaskInstance, TaskTally, Timestamp, UpstreamTally},
};
use gust_planner::{
    Advance, AdvanceSettings, FactReply, FactRequest, InstanceSelection, Plan, Poll, PreviousRunReply,
    end_of_try,
};
use serde_json::{Value, json};
use uuid::Uuid;

pub use gust_planner::TryOutcome;

/// What a task does when it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// It ends like this.
    End(TryOutcome),
    /// It succeeds, and follows these of the tasks after it.
    Follow(Vec<String>),
    /// It succeeds, and skips all tasks after it, or only the direct ones.
    ShortCircuit { direct_only: bool },
    /// It succeeds, and leaves a value of this length.
    Push(u32),
}

impl Act {
    /// Reads the outcome that a fixture holds for a task.
    pub fn read(outcome: &Value, index: MapIndex) -> Self {
        match outcome {
            Value::String(state) => Self::of(state),
            Value::Array(states) => Self::of(states[usize::try_from(index.0).unwrap()].as_str().unwrap()),
            Value::Object(object) => match object.get("follow") {
                Some(tasks) => Self::Follow(
                    tasks.as_array().unwrap().iter().map(|task| task.as_str().unwrap().to_owned()).collect(),
                ),
                None => Self::ShortCircuit { direct_only: object["short_circuit"] == "direct" },
            },
            other => panic!("{other} is no outcome"),
        }
    }

    fn of(state: &str) -> Self {
        Self::End(match state {
            "success" => TryOutcome::Success,
            "failed" => TryOutcome::Failed,
            "skipped" => TryOutcome::Skipped,
            other => panic!("{other} is no outcome"),
        })
    }
}

pub fn midnight() -> Timestamp {
    Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap()
}

/// A run of a DAG and all that a metastore holds of it.
#[derive(Debug, Clone)]
pub struct World {
    pub dag: Dag,
    pub run: DagRun,
    pub rows: BTreeMap<TaskInstanceId, TaskInstance>,
    pub tallies: BTreeMap<TaskId, TaskTally>,
    pub lengths: BTreeMap<TaskId, u32>,
    pub return_values: BTreeSet<(TaskId, MapIndex)>,
    pub skip_notes: BTreeMap<(TaskId, MapIndex), Value>,
    pub previous: PreviousRunReply,
    pub now: Timestamp,
    /// How many facts were asked for, over all passes: rows and tallies.
    pub facts_read: usize,
    pub last_plan: Option<Plan>,
    next_id: u128,
}

impl World {
    /// A running run of this DAG whose task instances are still to be made.
    pub fn new(serialized: &Value) -> Self {
        let dag = Dag::from_serialized(serialized).unwrap();
        let now = midnight();
        let run = DagRun {
            id: DagRunId(Uuid::from_u128(1)),
            dag_id: dag.dag_id.clone(),
            run_id: RunId::from("manual__1"),
            run_type: DagRunType::Manual,
            state: DagRunState::Running,
            logical_date: None,
            data_interval_start: None,
            data_interval_end: None,
            run_after: now,
            queued_at: now,
            start_date: Some(now),
            end_date: None,
            conf: Value::Null,
            triggered_by: Some(TriggeredBy::Test),
            triggering_user: None,
            dag_version_id: DagVersionId(Uuid::from_u128(2)),
            bundle_version: None,
            clear_number: 0,
            backfill_id: None,
            partition_key: None,
            note: None,
            unfinished_count: 0,
            under_way_count: 0,
            is_expanded: false,
            is_dirty: true,
            due_at: None,
            last_scheduling_decision: None,
            change_seq: 0,
        };
        Self {
            dag,
            run,
            rows: BTreeMap::new(),
            tallies: BTreeMap::new(),
            lengths: BTreeMap::new(),
            return_values: BTreeSet::new(),
            skip_notes: BTreeMap::new(),
            previous: PreviousRunReply::default(),
            now,
            facts_read: 0,
            last_plan: None,
            next_id: 100,
        }
    }

    /// Plans once, without applying it.
    pub fn plan(&mut self) -> Plan {
        let changed = self
            .rows
            .values()
            .filter(|row| {
                let rests =
                    matches!(row.state, TaskInstanceState::UpForRetry | TaskInstanceState::UpForReschedule);
                row.is_dirty || (rests && row.due_at.is_some_and(|due| due <= self.now))
            })
            .cloned()
            .collect();
        let dag = self.dag.clone();
        let mut next_id = self.next_id;
        let mut pass =
            Advance::begin(&dag, self.run.clone(), changed, self.now, AdvanceSettings::default(), || {
                next_id += 1;
                Uuid::from_u128(next_id)
            });
        let plan = loop {
            match pass.poll() {
                Poll::Need(request) => {
                    let reply = self.reply(&request);
                    pass.supply(reply);
                }
                Poll::Done(plan) => break *plan,
            }
        };
        drop(pass);
        self.next_id = next_id;
        plan
    }

    fn reply(&mut self, request: &FactRequest) -> FactReply {
        let is_wanted = |row: &TaskInstance| {
            request.all_instances
                || request.instances.get(&row.task_id).is_some_and(|selection| match selection {
                    InstanceSelection::All => true,
                    InstanceSelection::Undecided => row.state == TaskInstanceState::None,
                    InstanceSelection::Indexes(indexes) => indexes.contains(&row.map_index),
                })
        };
        let reply = FactReply {
            tallies: self
                .tallies
                .values()
                .filter(|tally| request.all_tallies || request.tally_task_ids.contains(&tally.task_id))
                .cloned()
                .collect(),
            instances: self.rows.values().filter(|row| is_wanted(row)).cloned().collect(),
            map_lengths: self
                .lengths
                .iter()
                .filter(|(task, _)| request.map_length_task_ids.contains(*task))
                .map(|(task, length)| (task.clone(), *length))
                .collect(),
            return_value_counts: request
                .return_value_count_task_ids
                .iter()
                .map(|task| {
                    let count = self.return_values.iter().filter(|(pusher, _)| pusher == task).count();
                    (task.clone(), u32::try_from(count).unwrap())
                })
                .collect(),
            skip_xcoms: self
                .skip_notes
                .iter()
                .filter(|(key, _)| request.skip_xcoms.contains(*key))
                .map(|((task, index), note)| (task.clone(), *index, note.clone()))
                .collect(),
            previous_run: request.previous_run.as_ref().map(|_| self.previous.clone()),
            latest_ended: request.latest_ended.and_then(|state| {
                self.rows.values().filter(|row| row.state == state).max_by_key(|row| row.end_date).cloned()
            }),
        };
        self.facts_read += reply.tallies.len() + reply.instances.len();
        reply
    }

    /// Makes a plan durable, its guards checked.
    pub fn apply(&mut self, plan: &Plan) {
        for id in &plan.deletes {
            self.rows.remove(id).expect("a deleted row exists");
        }
        for change in &plan.changes {
            let row = self.rows.get_mut(&change.id).expect("a changed row exists");
            assert_eq!(row.change_seq, change.change_seq, "nobody wrote {} meanwhile", row.task_id);
            row.change_seq += 1;
            row.state = change.state;
            row.accounted_state = change.state;
            row.is_dirty = false;
            if let Some(index) = change.map_index {
                row.map_index = index;
            }
            if let Some(number) = change.try_number {
                row.try_number = number;
            }
            if change.takes_back {
                row.epoch = row.epoch.next();
                row.lease = None;
            }
            row.scheduled_at = change.scheduled_at.or(row.scheduled_at);
            row.start_date = change.start_date.or(row.start_date);
            row.end_date = change.end_date.or(row.end_date);
            if let Some(due_at) = change.due_at {
                row.due_at = due_at;
            }
            row.dag_version_id = change.dag_version_id.unwrap_or(row.dag_version_id);
        }
        for row in &plan.inserts {
            let is_taken = self
                .rows
                .values()
                .any(|other| other.task_id == row.task_id && other.map_index == row.map_index);
            assert!(!is_taken, "{}[{}] is there once", row.task_id, row.map_index);
            self.rows.insert(row.id, row.clone());
        }
        for tally in &plan.tallies {
            self.tallies.insert(tally.task_id.clone(), tally.clone());
        }
        self.run.state = plan.run.state;
        self.run.start_date = plan.run.start_date;
        self.run.end_date = plan.run.end_date;
        self.run.unfinished_count = plan.run.unfinished_count;
        self.run.under_way_count = plan.run.under_way_count;
        self.run.is_expanded = plan.run.is_expanded;
        self.run.is_dirty = plan.run.is_dirty;
        self.run.due_at = plan.run.due_at;
        self.check_tallies();
        self.last_plan = Some(plan.clone());
    }

    /// Plans and applies once.
    pub fn advance(&mut self) -> Plan {
        let plan = self.plan();
        self.apply(&plan);
        plan
    }

    /// Everything that was added up is what the rows say.
    pub fn check_tallies(&self) {
        let unfinished = self.rows.values().filter(|row| !row.accounted_state.is_finished()).count();
        let under_way = self.rows.values().filter(|row| row.accounted_state.is_under_way()).count();
        assert_eq!(
            self.run.unfinished_count,
            i64::try_from(unfinished).unwrap(),
            "unfinished of {}",
            self.dag.dag_id
        );
        assert_eq!(
            self.run.under_way_count,
            i64::try_from(under_way).unwrap(),
            "under way of {}",
            self.dag.dag_id
        );
        for task in self.dag.task_indexes() {
            let task_id = &self.dag.task(task).task_id;
            let tally = self.tallies.get(task_id).unwrap_or_else(|| panic!("{task_id} has a tally"));
            let mut own = BTreeMap::new();
            for row in self.rows.values().filter(|row| row.task_id == *task_id) {
                *own.entry(row.accounted_state).or_insert(0) += 1;
            }
            assert_eq!(tally.own, own, "own tally of {}.{task_id}", self.dag.dag_id);
            let links = self.dag.links(task);
            let mut upstream = UpstreamTally::default();
            for &before in &links.upstream {
                if links.index_upstream.iter().any(|(other, _)| *other == before) {
                    continue;
                }
                let definition = self.dag.task(before);
                for row in self.rows.values().filter(|row| row.task_id == definition.task_id) {
                    let setup = u32::from(definition.is_setup);
                    upstream.total += 1;
                    upstream.setup_total += setup;
                    match row.accounted_state {
                        TaskInstanceState::Success => {
                            upstream.success += 1;
                            upstream.success_setup += setup;
                        }
                        TaskInstanceState::Skipped => {
                            upstream.skipped += 1;
                            upstream.skipped_setup += setup;
                        }
                        TaskInstanceState::Failed => upstream.failed += 1,
                        TaskInstanceState::UpstreamFailed => upstream.upstream_failed += 1,
                        TaskInstanceState::Removed => upstream.removed += 1,
                        _ => {}
                    }
                }
            }
            assert_eq!(tally.upstream, upstream, "upstream tally of {}.{task_id}", self.dag.dag_id);
        }
    }

    pub fn in_state(&self, state: TaskInstanceState) -> Vec<TaskInstanceId> {
        let mut rows: Vec<_> = self.rows.values().filter(|row| row.state == state).collect();
        rows.sort_by(|a, b| (&a.task_id, a.map_index).cmp(&(&b.task_id, b.map_index)));
        rows.into_iter().map(|row| row.id).collect()
    }

    pub fn find(&self, task_id: &str, index: i32) -> &TaskInstance {
        self.rows
            .values()
            .find(|row| row.task_id == *task_id && row.map_index == MapIndex(index))
            .unwrap_or_else(|| panic!("{task_id}[{index}] exists"))
    }

    pub fn state_of(&self, task_id: &str, index: i32) -> TaskInstanceState {
        self.find(task_id, index).state
    }

    /// A worker takes a scheduled task instance.
    pub fn start(&mut self, id: TaskInstanceId) {
        let row = self.rows.get_mut(&id).unwrap();
        assert_eq!(row.state, TaskInstanceState::Scheduled);
        row.state = TaskInstanceState::Running;
        row.epoch = row.epoch.next();
        row.start_date = Some(self.now);
        row.end_date = None;
        row.retry_delay_override = None;
        row.change_seq += 1;
    }

    /// A running task instance does what it does, as its worker writes it down.
    pub fn end(&mut self, id: TaskInstanceId, act: &Act) {
        let row = self.rows[&id].clone();
        let outcome = match act {
            Act::End(outcome) => outcome.clone(),
            Act::Follow(_) | Act::ShortCircuit { .. } | Act::Push(_) => TryOutcome::Success,
        };
        if let Act::Push(length) = act {
            self.lengths.insert(row.task_id.clone(), *length);
        }
        self.skip_downstream(&row, act);
        let ended = end_of_try(&row, &outcome, Some(&self.dag), self.run.logical_date, self.now);
        if ended.state == TaskInstanceState::Success && row.map_index.is_mapped() {
            self.return_values.insert((row.task_id.clone(), row.map_index));
        }
        let row = self.rows.get_mut(&id).unwrap();
        row.state = ended.state;
        row.end_date = Some(ended.end_date);
        row.due_at = ended.due_at;
        row.retry_delay_override = ended.retry_delay_override;
        row.is_dirty = true;
        row.change_seq += 1;
    }

    /// What the skip mixin does (`airflow/providers/standard/utils/skipmixin.py`).
    fn skip_downstream(&mut self, row: &TaskInstance, act: &Act) {
        let task = self.dag.index_of(row.task_id.as_str()).unwrap();
        let direct = self.dag.links(task).downstream.clone();
        let id_of = |task: &gust_model::dag::TaskIndex| self.dag.task(*task).task_id.clone();
        let (note, skipped): (Value, Vec<TaskId>) = match act {
            Act::Follow(named) => {
                let mut followed: BTreeSet<_> =
                    named.iter().map(|name| self.dag.index_of(name).unwrap()).collect();
                for name in named {
                    followed.extend(self.dag.flat_relatives(self.dag.index_of(name).unwrap(), false));
                }
                let (follow, skip): (Vec<_>, Vec<_>) =
                    direct.iter().partition(|task| followed.contains(task));
                let following: Vec<_> = follow.iter().map(|task| id_of(task).to_string()).collect();
                (json!({ "followed": following }), skip.iter().map(id_of).collect())
            }
            Act::ShortCircuit { direct_only } => {
                let all = if *direct_only { direct } else { self.dag.flat_relatives(task, false) };
                let skip: Vec<_> =
                    all.iter().filter(|task| !self.dag.task(**task).is_teardown).map(id_of).collect();
                let names: Vec<_> = skip.iter().map(ToString::to_string).collect();
                (json!({ "skipped": names }), skip)
            }
            Act::End(_) | Act::Push(_) => return,
        };
        self.skip_notes.insert((row.task_id.clone(), row.map_index), note);
        if row.map_index.is_mapped() {
            return;
        }
        let now = self.now;
        for other in self.rows.values_mut() {
            let is_settled = matches!(
                other.state,
                TaskInstanceState::Running | TaskInstanceState::Success | TaskInstanceState::Failed
            );
            if !is_settled && other.map_index == MapIndex::UNMAPPED && skipped.contains(&other.task_id) {
                other.state = TaskInstanceState::Skipped;
                other.start_date = Some(now);
                other.end_date = Some(now);
                other.is_dirty = true;
                other.change_seq += 1;
            }
        }
    }

    /// Plays the run to its end, as workers with room for all do: whatever may run starts at once and ends before what
    /// its end lets run. `pick` chooses who of those that run ends next, `act` says how; with `advances_at_once` the
    /// planner looks after each end, otherwise after all of them. Time goes on when nothing else can. Gives up after
    /// `most` rounds.
    pub fn play(
        &mut self,
        mut pick: impl FnMut(usize) -> usize,
        act: impl Fn(&TaskInstance) -> Act,
        advances_at_once: bool,
        most: usize,
    ) {
        for _ in 0..most {
            self.advance();
            if self.run.state.is_finished() {
                return;
            }
            let mut running = self.in_state(TaskInstanceState::Scheduled);
            if running.is_empty() {
                let due = self.rows.values().filter_map(|row| row.due_at).min();
                let due = due.unwrap_or_else(|| panic!("{}: something is left to wait for", self.dag.dag_id));
                self.now = self.now.max(due);
                continue;
            }
            for id in &running {
                self.start(*id);
            }
            while !running.is_empty() {
                let id = running.swap_remove(pick(running.len()) % running.len());
                // Another task's end may have stopped it.
                if self.rows[&id].state != TaskInstanceState::Running {
                    continue;
                }
                self.now += TimeDelta::milliseconds(10);
                let what = act(&self.rows[&id]);
                self.end(id, &what);
                if advances_at_once {
                    self.advance();
                }
            }
        }
        panic!("{}: the run does not end", self.dag.dag_id);
    }

    /// Plays the run to its end as `slots` workers do that take what may run by weight and then in the order in which it
    /// was found runnable, each task taking as long as any other, give or take; the planner looks after each end.
    pub fn play_with_workers(
        &mut self,
        slots: usize,
        mut jitter_ms: impl FnMut() -> i64,
        act: impl Fn(&TaskInstance) -> Act,
        most: usize,
    ) {
        let mut running: BTreeSet<(Timestamp, TaskInstanceId)> = BTreeSet::new();
        for _ in 0..most {
            self.advance();
            if self.run.state.is_finished() {
                return;
            }
            let mut scheduled: Vec<_> = self.in_state(TaskInstanceState::Scheduled);
            scheduled.sort_by_key(|id| {
                let row = &self.rows[id];
                (std::cmp::Reverse(row.priority_weight), row.map_index, row.id)
            });
            for id in scheduled.into_iter().take(slots - running.len()) {
                self.start(id);
                running.insert((self.now + TimeDelta::milliseconds(40 + jitter_ms()), id));
            }
            let wakes =
                self.run.due_at.into_iter().chain(self.rows.values().filter_map(|row| row.due_at)).min();
            let ends = running.first().map(|(at, _)| *at);
            if wakes.is_some_and(|at| ends.is_none_or(|end| at < end)) {
                self.now = self.now.max(wakes.unwrap());
                continue;
            }
            let (at, id) =
                running.pop_first().unwrap_or_else(|| panic!("{}: something runs", self.dag.dag_id));
            self.now = self.now.max(at);
            if self.rows[&id].state == TaskInstanceState::Running {
                let what = act(&self.rows[&id]);
                self.end(id, &what);
            }
        }
        panic!("{}: the run does not end", self.dag.dag_id);
    }

    /// Clears everything, as a person does, and lets the run go on.
    pub fn clear_all(&mut self) {
        for row in self.rows.values_mut() {
            let gust_planner::ClearedInstance::Reset { max_tries, .. } =
                gust_planner::clear_instance(row, Some(&self.dag))
            else {
                panic!("{} runs", row.task_id)
            };
            row.max_tries = max_tries;
            row.state = TaskInstanceState::None;
            row.due_at = None;
            row.is_dirty = true;
            row.change_seq += 1;
        }
        self.lengths.clear();
        self.return_values.clear();
        let cleared = gust_planner::clear_run(&self.run, DagRunState::Running, None, self.now);
        self.run.state = cleared.state;
        self.run.start_date = cleared.start_date;
        self.run.end_date = cleared.end_date;
        self.run.is_dirty = true;
    }

    /// The states of all instances by `task` or `task[index]`.
    pub fn states(&self) -> BTreeMap<String, String> {
        self.rows
            .values()
            .map(|row| {
                let name = if row.map_index.is_mapped() {
                    format!("{}[{}]", row.task_id, row.map_index)
                } else {
                    row.task_id.to_string()
                };
                (name, row.state.to_string())
            })
            .collect()
    }
}
