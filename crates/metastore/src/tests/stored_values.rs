//! What a database may hold that this version did not write.

use gust_model::TaskInstanceState;
use gust_ports::{MetastoreError, metastore::TxMode};
use rstest::rstest;
use sqlx::AssertSqlSafe;

use super::fixtures::{dag, now, run, store, task_instance};
use crate::testing::{self, Backend};

async fn both() -> Vec<Backend> {
    let mut backends = vec![testing::sqlite().await];
    backends.extend(testing::postgres().await);
    backends
}

async fn change(backend: &Backend, sql: &str) {
    match backend.sql.database() {
        crate::store::Database::Sqlite(store) => {
            sqlx::query(AssertSqlSafe(sql)).execute(store.writer()).await.unwrap();
        }
        crate::store::Database::Postgres(store) => {
            sqlx::query(AssertSqlSafe(sql)).execute(store.pool()).await.unwrap();
        }
    }
}

#[rstest]
#[case::unknown_state("UPDATE task_instance SET state = 'dreaming'", "task_instance.state", "dreaming")]
#[case::out_of_range(
    "UPDATE task_instance SET map_index = 5000000000",
    "task_instance.map_index",
    "5000000000"
)]
#[case::half_a_lease("UPDATE task_instance SET lease_expires_at = updated_at", "task_instance.lease", "both")]
#[tokio::test]
async fn a_value_that_cannot_be_read_is_named(
    #[case] damage: &str,
    #[case] column: &str,
    #[case] value: &str,
) {
    for backend in both().await {
        let dag = dag("d");
        let run = run(&dag, "r");
        let row = task_instance(&run, "t", TaskInstanceState::Running);
        store(&*backend.store, &dag, &run, std::slice::from_ref(&row)).await;
        change(&backend, damage).await;
        let mut tx = backend.store.begin(TxMode::Read).await.unwrap();
        let error = tx.task_instance(row.id).await.unwrap_err();
        assert!(matches!(error, MetastoreError::Unreadable(_)), "{error}");
        let error = error.to_string();
        assert!(error.contains(column) && error.contains(value), "{error}");
    }
}

#[tokio::test]
async fn damaged_json_is_named() {
    let backend = testing::sqlite().await;
    let dag = dag("d");
    store(&*backend.store, &dag, &run(&dag, "r"), &[]).await;
    change(&backend, "UPDATE dag_run SET conf = '{'").await;
    let mut tx = backend.store.begin(TxMode::Read).await.unwrap();
    let error = tx.dag_run(&dag.dag_id, &"r".into()).await.unwrap_err().to_string();
    assert!(error.contains("dag_run.conf"), "{error}");
}

#[tokio::test]
async fn nul_survives_in_json_and_is_replaced_in_texts_where_the_database_has_none() {
    for backend in both().await {
        let dag = dag("d");
        let mut run = run(&dag, "r");
        run.conf = serde_json::json!({"a": "x\0y", "float": 1.0, "big": u64::MAX});
        run.note = Some("x\0y".to_owned());
        store(&*backend.store, &dag, &run, &[]).await;
        let mut tx = backend.store.begin(TxMode::Read).await.unwrap();
        let found = tx.dag_run(&dag.dag_id, &run.run_id).await.unwrap().unwrap();
        assert_eq!(found.conf, run.conf);
        assert!(["x\0y", "x\u{fffd}y"].contains(&found.note.as_deref().unwrap()), "{:?}", found.note);
    }
}

#[tokio::test]
async fn a_dropped_transaction_leaves_no_trace_and_no_lock() {
    for backend in both().await {
        let mut tx = backend.store.begin(TxMode::Write).await.unwrap();
        tx.put_dag(&dag("gone")).await.unwrap();
        drop(tx);
        let mut tx = backend.store.begin(TxMode::Write).await.unwrap();
        assert!(tx.dag(&"gone".into()).await.unwrap().is_none());
        tx.put_dag(&dag("kept")).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_dag_and_its_version_may_be_written_in_either_order_but_not_one_alone() {
    for backend in both().await {
        let dag = dag("d");
        let version = gust_model::record::DagVersion {
            id: dag.current_version_id,
            dag_id: dag.dag_id.clone(),
            version_number: 1,
            bundle_name: dag.bundle_name.clone(),
            bundle_version: None,
            hash: "0".to_owned(),
            created_at: now(),
        };
        let mut tx = backend.store.begin(TxMode::Write).await.unwrap();
        tx.insert_dag_version(&version).await.unwrap();
        assert!(tx.commit().await.is_err());
        let mut tx = backend.store.begin(TxMode::Write).await.unwrap();
        tx.insert_dag_version(&version).await.unwrap();
        tx.put_dag(&dag).await.unwrap();
        tx.commit().await.unwrap();
    }
}
