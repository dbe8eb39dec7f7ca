//! A DAG, a run and task instances with as little as they need.

use chrono::SubsecRound as _;
use gust_model::{
    BundleName, DagId, DagRunId, DagRunState, DagRunType, DagVersionId, Epoch, MapIndex, RunId,
    TaskInstanceId, TaskInstanceState,
    record::{DagRecord, DagRun, TaskInstance, Timestamp},
};
use gust_ports::{Metastore, metastore::TxMode};
use serde_json::Value;
use uuid::Uuid;

pub(super) fn now() -> Timestamp {
    chrono::Utc::now().trunc_subsecs(6)
}

pub(super) fn dag(dag_id: &str) -> DagRecord {
    DagRecord {
        dag_id: DagId::from(dag_id),
        dag_display_name: None,
        bundle_name: BundleName::from("dags"),
        bundle_version: None,
        relative_fileloc: "dag.py".to_owned(),
        current_version_id: DagVersionId(Uuid::now_v7()),
        is_paused: false,
        is_stale: false,
        has_import_errors: false,
        description: None,
        owners: "airflow".to_owned(),
        tags: vec!["a".to_owned(), "b".to_owned()],
        timetable_summary: None,
        timetable_description: None,
        is_scheduled: true,
        max_active_runs: 16,
        max_active_tasks: 16,
        max_consecutive_failed_dag_runs: 0,
        next_run: None,
        asset_expression: Value::Null,
        last_parsed_at: now(),
        last_parse_duration: 0.5,
    }
}

pub(super) fn run(dag: &DagRecord, run_id: &str) -> DagRun {
    DagRun {
        id: DagRunId(Uuid::now_v7()),
        dag_id: dag.dag_id.clone(),
        run_id: RunId::from(run_id),
        run_type: DagRunType::Manual,
        state: DagRunState::Running,
        logical_date: None,
        data_interval_start: None,
        data_interval_end: None,
        run_after: now(),
        queued_at: now(),
        start_date: None,
        end_date: None,
        conf: Value::Null,
        triggered_by: None,
        triggering_user: None,
        dag_version_id: dag.current_version_id,
        bundle_version: None,
        clear_number: 0,
        backfill_id: None,
        partition_key: None,
        note: None,
        unfinished_count: 0,
        under_way_count: 0,
        is_expanded: true,
        is_dirty: false,
        due_at: None,
        last_scheduling_decision: None,
        change_seq: 0,
    }
}

pub(super) fn task_instance(run: &DagRun, task_id: &str, state: TaskInstanceState) -> TaskInstance {
    TaskInstance {
        id: TaskInstanceId(Uuid::now_v7()),
        dag_run_id: run.id,
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        task_id: task_id.into(),
        map_index: MapIndex::UNMAPPED,
        state,
        accounted_state: TaskInstanceState::None,
        is_dirty: false,
        change_seq: 0,
        try_number: 1,
        max_tries: 0,
        epoch: Epoch(1),
        lease: None,
        scheduled_at: None,
        queued_at: Some(now()),
        resend_at: None,
        send_count: 0,
        start_date: None,
        end_date: None,
        due_at: None,
        pool: "default_pool".into(),
        pool_slots: 1,
        queue: "default".into(),
        priority_weight: 1,
        executor: None,
        operator: "PythonOperator".to_owned(),
        operator_name: None,
        task_display_name: None,
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
        updated_at: now(),
    }
}

/// Stores a DAG, a run of it and its task instances.
pub(super) async fn store(store: &dyn Metastore, dag: &DagRecord, run: &DagRun, rows: &[TaskInstance]) {
    let mut tx = store.begin(TxMode::Write).await.unwrap();
    tx.put_dag(dag).await.unwrap();
    assert!(tx.insert_dag_run(run).await.unwrap());
    tx.insert_task_instances(rows).await.unwrap();
    tx.commit().await.unwrap();
}
