use gust_model::{
    DagId, Epoch, MapIndex, TaskInstanceId, TaskInstanceState,
    dag::{Dag, TaskIndex},
    record::{DagRun, TaskInstance, Timestamp},
};
use serde_json::Value;

/// A fresh task instance of a task in a run (`airflow/models/taskinstance.py: TaskInstance.insert_mapping`).
#[must_use]
pub fn new_instance(
    dag: &Dag,
    task: TaskIndex,
    run: &DagRun,
    map_index: MapIndex,
    id: TaskInstanceId,
    now: Timestamp,
) -> TaskInstance {
    let definition = dag.task(task);
    TaskInstance {
        id,
        dag_run_id: run.id,
        dag_id: DagId::clone(&run.dag_id),
        run_id: run.run_id.clone(),
        task_id: definition.task_id.clone(),
        map_index,
        state: TaskInstanceState::None,
        accounted_state: TaskInstanceState::None,
        is_dirty: false,
        change_seq: 0,
        try_number: 0,
        max_tries: definition.retries,
        epoch: Epoch::default(),
        lease: None,
        scheduled_at: None,
        queued_at: None,
        resend_at: None,
        send_count: 0,
        start_date: None,
        end_date: None,
        due_at: None,
        pool: definition.pool.clone(),
        pool_slots: definition.pool_slots,
        queue: definition.queue.clone(),
        priority_weight: dag.links(task).weight,
        executor: definition.executor.clone(),
        operator: definition.task_type.clone(),
        operator_name: definition.operator_name.clone(),
        task_display_name: definition.display_name.clone(),
        rendered_map_index: None,
        hostname: None,
        pid: None,
        next_method: None,
        next_kwargs: Value::Null,
        trigger_id: None,
        retry_delay_override: None,
        retry_reason: None,
        dag_version_id: run.dag_version_id,
        note: None,
        updated_at: now,
    }
}
