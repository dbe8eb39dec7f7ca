//! One wave: evaluate everything that is to be looked at, then apply what was decided.

use std::collections::BTreeSet;

use gust_model::{Epoch, MapIndex, TaskInstanceState, TriggerId, dag::TaskIndex, record::Trigger};

use super::{
    Advance, Phase,
    evaluate::{Occasion, Outcome, Which, evaluate},
    known::Missing,
};

impl Advance<'_> {
    pub(super) fn wave(&mut self) -> Result<(), Missing> {
        if self.work.is_empty() {
            self.phase = Phase::Conclude;
            return Ok(());
        }
        let work = std::mem::take(&mut self.work);
        let changed = std::mem::take(&mut self.changed_tasks);
        let occasion = Occasion {
            now: self.now,
            is_full: self.is_full,
            changed: &changed,
            skip_grace: self.settings.skip_grace,
        };
        let decided = self.look(|view| {
            let results: Vec<_> =
                work.iter().map(|(task, which)| (*task, evaluate(view, &occasion, *task, which))).collect();
            let mut decided = Vec::new();
            for (task, result) in results {
                decided.extend(result?.into_iter().map(|(index, outcome)| (task, index, outcome)));
            }
            // Resizing needs to know all there is.
            let mut missing = None;
            for (task, _, outcome) in &decided {
                if matches!(outcome, Outcome::Resizes(_) | Outcome::Expands(_))
                    && let Err(error) = view.rows(*task)
                {
                    missing = Some(error);
                }
            }
            missing.map_or(Ok(decided), Err)
        });
        self.changed_tasks = changed;
        let decided = match decided {
            Ok(decided) => decided,
            Err(missing) => {
                self.work = work;
                return Err(missing);
            }
        };
        // What the last wave saw happen has been looked at by everyone; a probe that decides something is none.
        self.is_full = false;
        if !decided.is_empty() {
            self.is_probe = false;
        }
        let mut resized = BTreeSet::new();
        for (task, index, outcome) in decided {
            match outcome {
                Outcome::Becomes(state) => self.become_state(task, index, state),
                Outcome::Runs => self.run_instance(task, index),
                Outcome::Holds => self.hold(task, index),
                Outcome::Expands(count) => self.expand(task, count),
                Outcome::Resizes(count) => {
                    if resized.insert(task) {
                        self.resize(task, count);
                    }
                }
            }
        }
        Ok(())
    }

    /// An instance is to be skipped unless something before it fails within the grace.
    fn hold(&mut self, task: TaskIndex, index: MapIndex) {
        let until = self.now + self.settings.skip_grace;
        if let Some(row) = self.ledger.row_mut(task, index) {
            row.edit().due_at = Some(until);
        }
        self.held_until = self.held_until.into_iter().chain([until]).min();
    }

    /// An instance comes to a state in which it is over.
    pub(super) fn become_state(&mut self, task: TaskIndex, index: MapIndex, state: TaskInstanceState) {
        let now = self.now;
        let Some(row) = self.ledger.row_mut(task, index) else { return };
        let instance = row.edit();
        let from = instance.accounted_state;
        instance.state = state;
        instance.accounted_state = state;
        instance.is_dirty = false;
        instance.due_at = None;
        if state != TaskInstanceState::Removed {
            instance.start_date = instance.start_date.or(Some(now));
            instance.end_date = instance.end_date.or(Some(now));
        }
        self.ledger.account(self.dag, task, Some(from), Some(state));
        self.note_change(task, index);
    }

    /// An instance may run: it waits for slots, or starts with a trigger, or is over at once if it does nothing
    /// (`airflow/models/dagrun.py: schedule_tis`).
    fn run_instance(&mut self, task: TaskIndex, index: MapIndex) {
        let (dag, now) = (self.dag, self.now);
        let definition = dag.task(task);
        let trigger = definition.start_trigger.as_ref().filter(|_| {
            // Airflow does not start mapped tasks with a trigger.
            definition.start_from_trigger && !definition.is_mapped()
        });
        let trigger_id = trigger.map(|_| TriggerId((self.fresh_id)()));
        let Some(row) = self.ledger.row_mut(task, index) else { return };
        let instance = row.edit();
        let from = instance.accounted_state;
        if instance.state != TaskInstanceState::UpForReschedule {
            instance.try_number += 1;
        }
        instance.due_at = None;
        let to = if definition.ends_in_scheduler() {
            instance.start_date = Some(now);
            instance.end_date = Some(now);
            TaskInstanceState::Success
        } else if let (Some(trigger), Some(id)) = (trigger, trigger_id) {
            let limits = [trigger.timeout, definition.execution_timeout];
            instance.start_date = Some(now);
            instance.trigger_id = Some(id);
            instance.next_method = Some(trigger.next_method.clone());
            instance.next_kwargs = trigger.next_kwargs.clone();
            instance.due_at =
                limits.into_iter().flatten().min().and_then(|limit| now.checked_add_signed(limit));
            self.triggers.push(Trigger {
                id,
                task_instance_id: instance.id,
                classpath: trigger.classpath.clone(),
                kwargs: trigger.kwargs.clone(),
                created_at: now,
                epoch: Epoch::default(),
                lease: None,
            });
            TaskInstanceState::Deferred
        } else {
            instance.scheduled_at = Some(now);
            TaskInstanceState::Scheduled
        };
        instance.state = to;
        instance.accounted_state = to;
        instance.is_dirty = false;
        self.ledger.account(dag, task, Some(from), Some(to));
        self.scheduled_any |= to == TaskInstanceState::Scheduled;
        if to.is_finished() {
            self.note_change(task, index);
        }
    }

    /// The unexpanded instance of a task becomes `count` of them (`airflow/models/taskmap.py: expand_mapped_task`).
    fn expand(&mut self, task: TaskIndex, count: u32) {
        let has_first = self.ledger.row(task, MapIndex(0)).is_some();
        if has_first {
            // Left from before a clear: the unexpanded one is superfluous.
            let from = self.ledger.row(task, MapIndex::UNMAPPED).map(|row| row.now.accounted_state);
            self.ledger.delete_unexpanded(task);
            self.ledger.account(self.dag, task, from, None);
        } else {
            self.ledger.renumber_unexpanded(task);
        }
        self.resize(task, count);
        // Those that look at this task by index see instances now where there was one.
        let waiting: Vec<TaskIndex> =
            self.dag.links(task).index_downstream.iter().map(|(waiting, _)| *waiting).collect();
        for waiting in waiting {
            self.look_at(waiting, Which::Indexes(BTreeSet::from([MapIndex::UNMAPPED])));
        }
    }

    /// Gives a task as many instances as what it is mapped over has items: adds missing ones, removes surplus ones
    /// (`airflow/models/dagrun.py: _revise_map_indexes_if_mapped`).
    fn resize(&mut self, task: TaskIndex, count: u32) {
        let count_index = i32::try_from(count).unwrap_or(i32::MAX);
        let surplus: Vec<MapIndex> = self
            .ledger
            .rows_of(task)
            .filter(|(index, row)| {
                !(0..count_index).contains(&index.0) && row.now.state != TaskInstanceState::Removed
            })
            .map(|(index, _)| index)
            .collect();
        for index in surplus {
            let is_held = self.ledger.row(task, index).is_some_and(|row| super::stop::is_held(row.now.state));
            if is_held {
                self.take_back(task, index);
            }
            self.become_state(task, index, TaskInstanceState::Removed);
        }
        for index in (0..count_index).map(MapIndex) {
            if self.ledger.row(task, index).is_none() {
                self.add_instance(task, index);
            }
        }
        self.ledger.set_expanded_length(task, Some(count));
        self.look_at(task, Which::All);
    }
}
