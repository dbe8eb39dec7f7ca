//! What a clear and a mark write to one task instance. Pure.
//!
//! A running task instance that is cleared begins anew at once rather than by way of `restarting`: a fenced worker's end
//! is not accepted, so nobody would lead it out of that state.

use gust_model::{
    TaskInstanceState,
    dag::{Dag, TaskIndex},
    record::{TaskInstance, Timestamp},
};
use gust_planner::MarkedInstance;
use gust_ports::metastore::{Guard, LeasePatch, TaskInstancePatch, TaskInstanceWrite};
use serde_json::Value;

/// What both do: take it from whoever holds it, and from whatever it waits for.
fn taken(state: TaskInstanceState) -> TaskInstancePatch {
    TaskInstancePatch {
        state: Some(state),
        is_dirty: Some(true),
        next_epoch: true,
        lease: LeasePatch::End,
        resend_at: Some(None),
        due_at: Some(None),
        next_method: Some(None),
        next_kwargs: Some(Value::Null),
        trigger_id: Some(None),
        ..TaskInstancePatch::default()
    }
}

/// A clear (`airflow/models/taskinstance.py: clear_task_instances`): nothing decided, and as many tries more as the
/// task has.
pub(crate) fn reset(row: &TaskInstance, graph: Option<(&Dag, TaskIndex)>) -> TaskInstanceWrite {
    let mut patch = TaskInstancePatch {
        scheduled_at: Some(None),
        queued_at: Some(None),
        send_count: Some(0),
        start_date: Some(None),
        end_date: Some(None),
        pid: Some(None),
        retry_delay_override: Some(None),
        retry_reason: Some(None),
        ..taken(TaskInstanceState::None)
    };
    if let Some((dag, at)) = graph {
        let task = dag.task(at);
        patch.max_tries = Some(row.try_number.saturating_add(task.retries));
        patch.pool = Some(task.pool.clone());
        patch.pool_slots = Some(task.pool_slots);
        patch.queue = Some(task.queue.clone());
        patch.priority_weight = Some(dag.links(at).weight);
    } else {
        // The task is no longer there: what is known of its tries is all there is.
        patch.max_tries = Some(row.max_tries.max(row.try_number));
    }
    TaskInstanceWrite { id: row.id, guard: Guard::ChangeSeq(row.change_seq), patch }
}

/// A mark, as the planner words it.
pub(crate) fn mark(row: &TaskInstance, marked: MarkedInstance) -> TaskInstanceWrite {
    let patch = TaskInstancePatch {
        start_date: Some(Some(marked.start_date)),
        end_date: Some(Some(marked.end_date)),
        ..taken(marked.state)
    };
    TaskInstanceWrite { id: row.id, guard: Guard::ChangeSeq(row.change_seq), patch }
}

/// The try that a clear ends, as it is kept (`airflow/models/taskinstancehistory.py: record_ti`); `None` if there was
/// none.
pub(crate) fn ended_try(row: &TaskInstance, now: Timestamp) -> Option<TaskInstance> {
    if row.try_number == 0 || row.state == TaskInstanceState::None {
        return None;
    }
    let mut kept = row.clone();
    if !row.state.is_finished() {
        kept.state = TaskInstanceState::Failed;
        kept.end_date = row.end_date.or(Some(now));
    }
    kept.lease = None;
    Some(kept)
}
