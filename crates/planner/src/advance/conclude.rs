//! What a run has come to once no wave decides anything any more (`airflow/models/dagrun.py: update_state`).

use gust_model::{TaskInstanceState, dag::TaskIndex, record::TaskInstance};

use super::{
    Advance, Phase,
    known::{Fact, Missing, View},
};
use crate::plan::{RunCallback, RunEnd};

impl Advance<'_> {
    pub(super) fn conclude(&mut self) -> Result<(), Missing> {
        if self.ledger.unfinished_count == 0 {
            let end = self.look(leaves_end)?;
            return self.end_run(end);
        }
        if self.ledger.under_way_count > 0 {
            self.phase = Phase::Finish;
            return Ok(());
        }
        // Nothing is under way and nothing was decided. Before that is called a deadlock, everything is looked at once.
        if !self.is_probe {
            self.is_probe = true;
            self.look_at_everything();
            self.phase = Phase::Waves;
            return Ok(());
        }
        if self.look(waits_for_others)? {
            self.phase = Phase::Finish;
            return Ok(());
        }
        self.end_run(RunEnd::AllTasksDeadlocked)
    }

    fn end_run(&mut self, end: RunEnd) -> Result<(), Missing> {
        let has_callback = match end {
            RunEnd::Success => self.dag.has_on_success_callback,
            _ => self.dag.has_on_failure_callback,
        };
        if has_callback {
            let relevant = self.look(|view| match end {
                RunEnd::Success => latest(view, TaskInstanceState::Success),
                RunEnd::AllTasksDeadlocked => blocked(view),
                RunEnd::TaskFailure | RunEnd::TimedOut => latest(view, TaskInstanceState::Failed),
            })?;
            self.callback = Some(RunCallback { end, relevant });
        }
        self.ended = Some(end);
        self.phase = Phase::Finish;
        Ok(())
    }
}

/// How a run ends of which everything is over: by its leaves. A removed leaf does not count.
fn leaves_end(view: &View<'_>) -> Fact<RunEnd> {
    let mut missing = None;
    let mut end = RunEnd::Success;
    for &leaf in view.dag.state_leaves() {
        match view.tally(leaf) {
            Ok(tally) => {
                let fails = [TaskInstanceState::Failed, TaskInstanceState::UpstreamFailed];
                if fails.iter().any(|state| tally.own.contains_key(state)) {
                    end = RunEnd::TaskFailure;
                }
            }
            Err(error) => missing = Some(error),
        }
    }
    missing.map_or(Ok(end), Err)
}

/// Whether some task that is left may be waiting for something outside the run: then it is no deadlock.
fn waits_for_others(view: &View<'_>) -> Fact<bool> {
    let may_wait =
        |task: TaskIndex| view.dag.task(task).depends_on_past || view.dag.task(task).has_concurrency_limit();
    if !view.dag.task_indexes().any(may_wait) {
        return Ok(false);
    }
    view.all_tallies()?;
    for task in view.dag.task_indexes().filter(|task| may_wait(*task)) {
        if view.tally(task)?.own.keys().any(|state| !state.is_finished()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The instance in a state with the latest end, of the database's and this pass's.
fn latest(view: &View<'_>, state: TaskInstanceState) -> Fact<Option<TaskInstance>> {
    let stored = view.latest_ended(state)?.filter(|row| {
        // This pass may have changed it since.
        view.dag.index_of(row.task_id.as_str()).is_none_or(|task| {
            view.ledger.row(task, row.map_index).is_none_or(|known| known.now.state == state)
        })
    });
    let own = view.ledger.all_rows().filter(|(_, _, row)| row.now.state == state).map(|(_, _, row)| &row.now);
    Ok(own.chain(stored).max_by_key(|row| (row.end_date, std::cmp::Reverse(row.id))).cloned())
}

/// An instance that is left although something before it is over.
fn blocked(view: &View<'_>) -> Fact<Option<TaskInstance>> {
    view.all_tallies()?;
    for &task in view.dag.topological() {
        let is_left = view.tally(task)?.own.contains_key(&TaskInstanceState::None);
        let mut is_blocked = false;
        for &upstream in &view.dag.links(task).upstream {
            is_blocked |= view.tally(upstream)?.own.keys().any(|state| state.is_finished());
        }
        if is_left && is_blocked {
            view.undecided_rows(task)?;
            let row = view.ledger.rows_of(task).find(|(_, row)| row.now.state == TaskInstanceState::None);
            return Ok(row.map(|(_, row)| row.now.clone()));
        }
    }
    Ok(None)
}
