//! Who waits for whom on PostgreSQL.

use std::time::Duration;

use gust_model::{
    MapIndex, TaskInstanceState,
    record::{XCom, XComKey},
};
use gust_ports::metastore::{Guard, LockWait, TaskInstancePatch, TaskInstanceWrite, TxMode};
use serde_json::json;

use super::fixtures::{dag, now, run, store, task_instance};
use crate::testing;

/// Far longer than a transaction takes that waits for nobody.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_end_of_a_try_and_a_new_run_wait_for_no_lock_on_run_or_dag() {
    let Some(backend) = testing::postgres().await else { return };
    let dag = dag("d");
    let run_row = run(&dag, "r");
    let row = task_instance(&run_row, "t", TaskInstanceState::Running);
    store(&*backend.store, &dag, &run_row, std::slice::from_ref(&row)).await;

    let mut pass = backend.store.begin(TxMode::Write).await.unwrap();
    pass.lock_dag(&dag.dag_id).await.unwrap().unwrap();
    pass.lock_dag_run(run_row.id, LockWait::Wait).await.unwrap().unwrap();

    let end = async {
        let mut tx = backend.store.begin(TxMode::Write).await.unwrap();
        let key = XComKey {
            dag_run_id: run_row.id,
            task_id: row.task_id.clone(),
            map_index: MapIndex::UNMAPPED,
            key: "return_value".to_owned(),
        };
        let xcom = XCom {
            key,
            dag_id: dag.dag_id.clone(),
            run_id: run_row.run_id.clone(),
            value: json!(1),
            mapped_length: None,
            is_dag_result: false,
            timestamp: now(),
        };
        tx.put_xcoms(&[xcom]).await.unwrap();
        tx.put_rendered_fields(row.id, &json!({})).await.unwrap();
        let patch = TaskInstancePatch {
            state: Some(TaskInstanceState::Success),
            is_dirty: Some(true),
            ..TaskInstancePatch::default()
        };
        let write = TaskInstanceWrite { id: row.id, guard: Guard::State(TaskInstanceState::Running), patch };
        assert_eq!(tx.update_task_instances(&[write]).await.unwrap(), [row.id]);
        assert!(tx.insert_dag_run(&run(&dag, "triggered")).await.unwrap());
        tx.commit().await.unwrap();
    };
    tokio::time::timeout(PATIENCE, end).await.unwrap();

    // Another pass does wait, or skips.
    let mut other = backend.store.begin(TxMode::Write).await.unwrap();
    assert!(other.lock_dag_run(run_row.id, LockWait::SkipLocked).await.unwrap().is_none());
    pass.commit().await.unwrap();
    assert!(other.lock_dag_run(run_row.id, LockWait::Wait).await.unwrap().is_some());
}
