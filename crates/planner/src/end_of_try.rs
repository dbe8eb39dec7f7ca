//! What the end of a try means, wherever it is seen: by its worker, by the reaper, by a person's request.

use chrono::TimeDelta;
use gust_model::{
    DagId, TaskInstanceState,
    dag::{Dag, Task},
    record::{TaskInstance, Timestamp},
};
use serde_json::Value;

use crate::next_retry_at;

/// How a try ended.
#[derive(Debug, Clone, PartialEq)]
pub enum TryOutcome {
    /// Well.
    Success,
    /// The task asked to be skipped.
    Skipped,
    /// The task failed in a way that another try may mend: an exception, a time limit.
    Failed,
    /// The task asked to fail for good, whatever tries are left (`AirflowFailException`, or a retry policy's word).
    FailedForGood,
    /// The task's own process found that it may try again, with the delay and reason that its retry policy gave.
    Retry {
        /// The delay in seconds, if the policy gave one.
        delay_s: Option<f64>,
        /// The reason, if it gave one.
        reason: Option<String>,
    },
    /// The process ended without a word: killed, out of memory, its lease expired. Its callbacks have not run.
    Died {
        /// What is known of it, for people.
        cause: String,
    },
    /// It is to be poked again at this moment.
    Reschedule(Timestamp),
}

/// Which callback of a task is to be run because its process could not run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackKind {
    /// The failure callback, and the mail about a failure.
    Failure,
    /// The retry callback, and the mail about a retry.
    Retry,
}

/// What a try's end means for its row. Every end also ends the lease, takes the row's trigger and resumption away and
/// marks it dirty.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedTry {
    /// The new state.
    pub state: TaskInstanceState,
    /// When it ended.
    pub end_date: Timestamp,
    /// When it moves on by itself: its retry or its next poke.
    pub due_at: Option<Timestamp>,
    /// The delay that a retry policy gave, in seconds.
    pub retry_delay_override: Option<f64>,
    /// The reason that it gave.
    pub retry_reason: Option<String>,
    /// The row to be kept as a try that is over, if this end begins another one.
    pub history: Option<TaskInstance>,
    /// The callback to be queued, with what is said of the cause.
    pub callback: Option<(CallbackKind, String)>,
}

/// Whether a task instance that fails now gets another try
/// (`airflow/models/taskinstance.py: TaskInstance.is_eligible_to_retry`). One that was cleared while it ran always does.
#[must_use]
pub fn should_retry(instance: &TaskInstance, retries: Option<i32>) -> bool {
    if instance.state == TaskInstanceState::Restarting {
        return true;
    }
    let is_within = instance.try_number <= instance.max_tries;
    // Without the task's definition the row's own count has to do.
    retries.map_or(is_within, |retries| retries != 0 && is_within)
}

/// Decides what a try's end means. `task` is its definition, if the DAG still has it; `logical_date` is the run's.
#[must_use]
pub fn end_of_try(
    instance: &TaskInstance,
    outcome: &TryOutcome,
    dag: Option<&Dag>,
    logical_date: Option<Timestamp>,
    now: Timestamp,
) -> EndedTry {
    let task = dag.and_then(|dag| dag.index_of(instance.task_id.as_str()).map(|index| dag.task(index)));
    let was_cleared = instance.state == TaskInstanceState::Restarting;
    let may_retry = should_retry(instance, task.map(|task| task.retries));
    let plain = |state| EndedTry {
        state,
        end_date: now,
        due_at: None,
        retry_delay_override: None,
        retry_reason: None,
        history: None,
        callback: None,
    };
    // Whatever a task comes to that was cleared while it ran, it runs again.
    if was_cleared {
        return retried(instance, task, logical_date, None, None, now);
    }
    match outcome {
        TryOutcome::Success => plain(TaskInstanceState::Success),
        TryOutcome::Skipped => plain(TaskInstanceState::Skipped),
        TryOutcome::Failed if may_retry => retried(instance, task, logical_date, None, None, now),
        TryOutcome::Failed | TryOutcome::FailedForGood => plain(TaskInstanceState::Failed),
        // The process was told whether it may retry; its word stands.
        TryOutcome::Retry { delay_s, reason } => {
            retried(instance, task, logical_date, *delay_s, reason.clone(), now)
        }
        TryOutcome::Died { cause } if may_retry => {
            let mut ended = retried(instance, task, logical_date, None, None, now);
            ended.callback = callback(task, CallbackKind::Retry, cause);
            ended
        }
        TryOutcome::Died { cause } => {
            let mut ended = plain(TaskInstanceState::Failed);
            ended.callback = callback(task, CallbackKind::Failure, cause);
            ended
        }
        TryOutcome::Reschedule(at) => {
            EndedTry { due_at: Some(*at), ..plain(TaskInstanceState::UpForReschedule) }
        }
    }
}

fn retried(
    instance: &TaskInstance,
    task: Option<&Task>,
    logical_date: Option<Timestamp>,
    delay_s: Option<f64>,
    reason: Option<String>,
    now: Timestamp,
) -> EndedTry {
    let is_cleared = instance.state == TaskInstanceState::Restarting;
    // A try that was cleared while it ran was kept by the clear.
    let history = (!is_cleared).then(|| TaskInstance {
        state: TaskInstanceState::Failed,
        end_date: Some(now),
        retry_delay_override: delay_s,
        retry_reason: reason.clone(),
        lease: None,
        ..instance.clone()
    });
    let due_at = match task {
        Some(task) => retry_at(task, &instance.dag_id, logical_date, instance.try_number, delay_s, now),
        None => now + TimeDelta::seconds(300),
    };
    EndedTry {
        state: TaskInstanceState::UpForRetry,
        end_date: now,
        due_at: Some(due_at),
        retry_delay_override: delay_s,
        retry_reason: reason,
        history,
        callback: None,
    }
}

fn retry_at(
    task: &Task,
    dag_id: &DagId,
    logical_date: Option<Timestamp>,
    try_number: i32,
    delay_s: Option<f64>,
    now: Timestamp,
) -> Timestamp {
    next_retry_at(task, dag_id, logical_date, try_number, delay_s, now)
}

/// The callback, if the task has one or wants to write a mail.
fn callback(task: Option<&Task>, kind: CallbackKind, cause: &str) -> Option<(CallbackKind, String)> {
    let task = task?;
    let has_email = !matches!(&task.email, Value::Null);
    let is_wanted = match kind {
        CallbackKind::Failure => task.has_on_failure_callback || (has_email && task.email_on_failure),
        CallbackKind::Retry => task.has_on_retry_callback || (has_email && task.email_on_retry),
    };
    is_wanted.then(|| (kind, cause.to_owned()))
}
