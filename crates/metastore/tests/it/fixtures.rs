//! Rows to begin with.

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{TimeDelta, TimeZone, Utc};
use gust_model::{
    DagId, DagRunId, DagRunState, DagRunType, DagVersionId, Epoch, MapIndex, RunId, TaskId, TaskInstanceId,
    TaskInstanceState, TriggeredBy,
    record::{DagRecord, DagRun, DagVersion, NextRun, Pool, TaskInstance, Timestamp},
};
use gust_ports::metastore::{Guard, TaskInstancePatch, TaskInstanceWrite};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::backend::Backend;

/// An identifier that sorts after all earlier ones of this process.
pub fn id() -> Uuid {
    static LAST: AtomicU64 = AtomicU64::new(1);
    Uuid::from_u128(u128::from(LAST.fetch_add(1, Ordering::Relaxed)) << 32)
}

/// A moment `seconds` after the beginning of 2026, with microseconds that must not get lost.
pub fn at(seconds: i64) -> Timestamp {
    Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap()
        + TimeDelta::microseconds(seconds * 1_000_000 + 123_457)
}

/// A DAG with every field set.
pub fn dag(dag_id: &str) -> DagRecord {
    DagRecord {
        dag_id: DagId::from(dag_id),
        dag_display_name: Some(format!("Shown {dag_id} ✓")),
        bundle_name: "dags".into(),
        bundle_version: Some("b1".into()),
        relative_fileloc: format!("{dag_id}.py"),
        current_version_id: DagVersionId(id()),
        is_paused: false,
        is_stale: false,
        has_import_errors: false,
        description: Some("Ein Wörtchen".to_owned()),
        owners: "ann,bob".to_owned(),
        tags: vec!["a".to_owned(), "b".to_owned()],
        timetable_summary: Some("0 0 * * *".to_owned()),
        timetable_description: Some("At midnight".to_owned()),
        is_scheduled: true,
        max_active_runs: 16,
        max_active_tasks: 7,
        max_consecutive_failed_dag_runs: 3,
        next_run: Some(next_run(1000)),
        asset_expression: json!({"any": [{"asset": {"uri": "s3://x"}}]}),
        last_parsed_at: at(5),
        last_parse_duration: 0.125,
    }
}

/// A next run at a moment.
pub fn next_run(seconds: i64) -> NextRun {
    NextRun {
        run_after: at(seconds),
        logical_date: Some(at(seconds - 60)),
        data_interval_start: Some(at(seconds - 60)),
        data_interval_end: Some(at(seconds)),
        partition_key: Some("p".to_owned()),
    }
}

/// A DAG's current version.
pub fn version(dag: &DagRecord) -> DagVersion {
    DagVersion {
        id: dag.current_version_id,
        dag_id: dag.dag_id.clone(),
        version_number: 1,
        bundle_name: dag.bundle_name.clone(),
        bundle_version: dag.bundle_version.clone(),
        hash: "abc".to_owned(),
        created_at: at(1),
    }
}

/// A running run, nothing of it dirty or due, its date `day` days after the beginning.
pub fn run(dag: &DagRecord, day: i64) -> DagRun {
    DagRun {
        id: DagRunId(id()),
        dag_id: dag.dag_id.clone(),
        run_id: RunId::new(format!("scheduled__{day}")),
        run_type: DagRunType::Scheduled,
        state: DagRunState::Running,
        logical_date: Some(at(day * 86_400)),
        data_interval_start: Some(at(day * 86_400)),
        data_interval_end: Some(at((day + 1) * 86_400)),
        run_after: at((day + 1) * 86_400),
        queued_at: at((day + 1) * 86_400 + 1),
        start_date: None,
        end_date: None,
        conf: json!({"ключ": [1, null, "✓"]}),
        triggered_by: Some(TriggeredBy::Timetable),
        triggering_user: Some("ann".to_owned()),
        dag_version_id: dag.current_version_id,
        bundle_version: Some("b1".into()),
        clear_number: 0,
        backfill_id: None,
        partition_key: None,
        note: None,
        unfinished_count: 2,
        under_way_count: 1,
        is_expanded: true,
        is_dirty: false,
        due_at: None,
        last_scheduling_decision: None,
        change_seq: 1,
    }
}

/// A task instance of a run, nothing decided, not dirty.
pub fn task_instance(run: &DagRun, task_id: &str) -> TaskInstance {
    TaskInstance {
        id: TaskInstanceId(id()),
        dag_run_id: run.id,
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        task_id: TaskId::from(task_id),
        map_index: MapIndex::UNMAPPED,
        state: TaskInstanceState::None,
        accounted_state: TaskInstanceState::None,
        is_dirty: false,
        change_seq: 1,
        try_number: 0,
        max_tries: 2,
        epoch: Epoch(0),
        lease: None,
        scheduled_at: None,
        queued_at: None,
        resend_at: None,
        send_count: 0,
        start_date: None,
        end_date: None,
        due_at: None,
        pool: "default_pool".into(),
        pool_slots: 1,
        queue: "default".into(),
        priority_weight: 1,
        executor: Some("celery".to_owned()),
        operator: "PythonOperator".to_owned(),
        operator_name: Some("@task".to_owned()),
        task_display_name: Some("Schön".to_owned()),
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
        updated_at: at(3),
    }
}

/// A task instance in a state.
pub fn in_state(run: &DagRun, task_id: &str, state: TaskInstanceState) -> TaskInstance {
    TaskInstance { state, ..task_instance(run, task_id) }
}

/// A queued task instance of epoch 1.
pub fn queued(run: &DagRun, task_id: &str) -> TaskInstance {
    TaskInstance {
        epoch: Epoch(1),
        try_number: 1,
        queued_at: Some(at(50)),
        ..in_state(run, task_id, TaskInstanceState::Queued)
    }
}

/// A pool.
pub fn pool(name: &str, slots: i32) -> Pool {
    Pool { name: name.into(), slots, description: None, include_deferred: false }
}

/// One guarded write.
pub fn guarded(id: TaskInstanceId, guard: Guard, patch: TaskInstancePatch) -> Vec<TaskInstanceWrite> {
    vec![TaskInstanceWrite { id, guard, patch }]
}

/// A patch that sets the state.
pub fn to_state(state: TaskInstanceState) -> TaskInstancePatch {
    TaskInstancePatch { state: Some(state), ..TaskInstancePatch::default() }
}

/// Stores a DAG with its version.
pub async fn put_dag(backend: &Backend, dag: &DagRecord) {
    let mut tx = backend.write().await;
    tx.put_dag(dag).await.unwrap();
    tx.insert_dag_version(&version(dag)).await.unwrap();
    tx.commit().await.unwrap();
}

/// Stores runs.
pub async fn put_runs(backend: &Backend, runs: &[&DagRun]) {
    let mut tx = backend.write().await;
    for run in runs {
        assert!(tx.insert_dag_run(run).await.unwrap());
    }
    tx.commit().await.unwrap();
}

/// Stores task instances.
pub async fn put_task_instances(backend: &Backend, rows: &[TaskInstance]) {
    let mut tx = backend.write().await;
    tx.insert_task_instances(rows).await.unwrap();
    tx.commit().await.unwrap();
}

/// Stores the DAG `d` with one running run.
pub async fn one_run(backend: &Backend) -> (DagRecord, DagRun) {
    let dag = dag("d");
    put_dag(backend, &dag).await;
    let run = run(&dag, 1);
    put_runs(backend, &[&run]).await;
    (dag, run)
}
