//! Stopping what is left of a run: its time is over, or a task failed in a DAG that then stops.

use gust_model::{MapIndex, TaskInstanceState, dag::TaskIndex};

use super::{Advance, Phase, known::Missing};
use crate::plan::{RunCallback, RunEnd};

/// Whether an executor, a worker or a trigger holds an instance in this state.
pub(super) fn is_held(state: TaskInstanceState) -> bool {
    state.is_executing()
        || matches!(
            state,
            TaskInstanceState::Deferred | TaskInstanceState::AwaitingInput | TaskInstanceState::Restarting
        )
}

impl Advance<'_> {
    /// Fails a run that took too long, and skips what is left of it
    /// (`airflow/jobs/scheduler_job_runner.py: _schedule_dag_run`).
    pub(super) fn time_out(&mut self) -> Result<(), Missing> {
        self.read_all_rows()?;
        let left: Vec<(TaskIndex, MapIndex)> = self
            .ledger
            .all_rows()
            .filter(|(_, _, row)| !row.now.state.is_finished())
            .map(|(task, index, _)| (task, index))
            .collect();
        let last = self
            .ledger
            .all_rows()
            .filter(|(_, _, row)| !row.now.state.is_finished())
            .max_by_key(|(_, _, row)| row.now.start_date)
            .map(|(_, _, row)| row.now.clone());
        for (task, index) in left {
            self.stop_instance(task, index, TaskInstanceState::Skipped);
        }
        self.ended = Some(RunEnd::TimedOut);
        if self.dag.has_on_failure_callback {
            self.callback = Some(RunCallback { end: RunEnd::TimedOut, relevant: last });
        }
        self.phase = Phase::Finish;
        Ok(())
    }

    /// Stops everything but teardowns after a task failed (`airflow/models/taskinstance.py: _stop_remaining_tasks`):
    /// what runs fails, what is not over is skipped, and so is what failed only because of something before it.
    pub(super) fn stop_others(&mut self) -> Result<(), Missing> {
        self.read_all_rows()?;
        let stopping = std::mem::take(&mut self.stopping);
        let others: Vec<(TaskIndex, MapIndex, TaskInstanceState)> = self
            .ledger
            .all_rows()
            .filter(|(task, _, row)| {
                // Another instance of the one task that failed goes on.
                let is_same = stopping.len() == 1 && stopping.contains(task);
                let is_settled = matches!(
                    row.now.state,
                    TaskInstanceState::Success | TaskInstanceState::Failed | TaskInstanceState::Skipped
                );
                !is_same && !is_settled && !self.dag.task(*task).is_teardown
            })
            .map(|(task, index, row)| (task, index, row.now.state))
            .collect();
        for (task, index, state) in others {
            let to = if state == TaskInstanceState::Running {
                TaskInstanceState::Failed
            } else {
                TaskInstanceState::Skipped
            };
            self.stop_instance(task, index, to);
        }
        self.phase = Phase::Waves;
        Ok(())
    }

    fn stop_instance(&mut self, task: TaskIndex, index: MapIndex, to: TaskInstanceState) {
        if self.ledger.row(task, index).is_some_and(|row| is_held(row.now.state)) {
            self.take_back(task, index);
            if let Some(row) = self.ledger.row_mut(task, index) {
                row.edit().end_date = Some(self.now);
            }
        }
        self.become_state(task, index, to);
    }

    /// Takes an instance back from whoever holds it.
    pub(super) fn take_back(&mut self, task: TaskIndex, index: MapIndex) {
        if let Some(row) = self.ledger.row_mut(task, index) {
            let instance = row.edit();
            instance.epoch = instance.epoch.next();
            instance.lease = None;
            self.freed_slots = true;
        }
    }
}
