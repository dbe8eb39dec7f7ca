//! What a person's mark sets (`airflow/api/common/mark_tasks.py`,
//! `airflow/api_fastapi/core_api/services/public/task_instances.py`).

use gust_model::{
    DagRunState, TaskInstanceState,
    record::{TaskInstance, Timestamp},
};

/// What a mark changes of a task instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkedInstance {
    /// The state.
    pub state: TaskInstanceState,
    /// The start, if it had none.
    pub start_date: Timestamp,
    /// The end.
    pub end_date: Timestamp,
    /// Whether what a worker or an executor holds of it is taken back.
    pub takes_back: bool,
}

/// Marks a task instance. None if it is in that state already. The row becomes dirty, loses its trigger and
/// resumption, and its run becomes dirty.
#[must_use]
pub fn mark_instance(
    instance: &TaskInstance,
    state: TaskInstanceState,
    now: Timestamp,
) -> Option<MarkedInstance> {
    if instance.state == state {
        return None;
    }
    let is_held = instance.state.is_executing()
        || matches!(instance.state, TaskInstanceState::Deferred | TaskInstanceState::AwaitingInput);
    Some(MarkedInstance {
        state,
        start_date: instance.start_date.unwrap_or(now),
        end_date: if instance.state.is_finished() { instance.end_date.unwrap_or(now) } else { now },
        takes_back: is_held || instance.state == TaskInstanceState::Restarting,
    })
}

/// What marking a whole run does to one of its task instances, if anything
/// (`airflow/api/common/mark_tasks.py: _set_dag_run_terminal_state`): what is under way comes to the run's state, what
/// has not begun is skipped, what is over stays; teardowns go on. The run's own state is set only if no teardown is
/// left to do ([`run_may_end`]).
#[must_use]
pub fn mark_run(
    run_state: DagRunState,
    instance: &TaskInstance,
    is_teardown: bool,
    now: Timestamp,
) -> Option<MarkedInstance> {
    let comes_to = match run_state {
        DagRunState::Success => TaskInstanceState::Success,
        DagRunState::Failed => TaskInstanceState::Failed,
        DagRunState::Queued | DagRunState::Running => return None,
    };
    if is_teardown || instance.state.is_finished() {
        return None;
    }
    let is_under_way = matches!(
        instance.state,
        TaskInstanceState::Running
            | TaskInstanceState::Deferred
            | TaskInstanceState::UpForReschedule
            | TaskInstanceState::AwaitingInput
    );
    mark_instance(instance, if is_under_way { comes_to } else { TaskInstanceState::Skipped }, now)
}

/// Whether a run that is marked takes its state at once: none of the given instances is a teardown still to be done.
/// Otherwise it goes on until its teardowns are over, and comes to what its tasks say.
pub fn run_may_end<'a>(instances: impl IntoIterator<Item = (&'a TaskInstance, bool)>) -> bool {
    !instances.into_iter().any(|(instance, is_teardown)| is_teardown && !instance.state.is_finished())
}
