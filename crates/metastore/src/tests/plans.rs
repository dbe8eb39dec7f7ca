//! The hot statements go through indexes: their cost follows what changed, not how much there is.

use std::time::Duration;

use gust_model::{AttemptId, DagRunState, Epoch, TaskInstanceState, record::TaskInstance};
use gust_ports::metastore::{CandidateQuery, Guard, TaskInstancePatch, TaskInstanceWrite, Tx, TxMode};
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::fixtures::{dag, now, run, store, task_instance};
use crate::{
    connection::SqlTx,
    store::Database,
    testing::{self, Backend},
};

/// Enough rows that PostgreSQL prefers an index to reading everything, nearly all of them over and done.
async fn filled(backend: &Backend) -> (gust_model::record::DagRun, Vec<TaskInstance>) {
    let dag = dag("d");
    for n in 0..20 {
        let mut old = run(&dag, &format!("old{n}"));
        old.state = DagRunState::Success;
        let rows: Vec<TaskInstance> =
            (0..200).map(|n| task_instance(&old, &format!("t{n}"), TaskInstanceState::Success)).collect();
        store(&*backend.store, &dag, &old, &rows).await;
    }
    let run = run(&dag, "now");
    let rows: Vec<TaskInstance> = [
        TaskInstanceState::Scheduled,
        TaskInstanceState::Queued,
        TaskInstanceState::Running,
        TaskInstanceState::UpForRetry,
        TaskInstanceState::Deferred,
    ]
    .into_iter()
    .enumerate()
    .map(|(n, state)| TaskInstance { is_dirty: true, ..task_instance(&run, &format!("t{n}"), state) })
    .collect();
    store(&*backend.store, &dag, &run, &rows).await;
    (run, rows)
}

async fn run_hot_statements(tx: &mut dyn Tx, run: &gust_model::record::DagRun, rows: &[TaskInstance]) {
    let minute = Duration::from_mins(1);
    let (id, attempt) = (rows[0].id, AttemptId(Uuid::now_v7()));
    tx.claim_task_instance(id, Epoch(1), attempt, minute, "h", 1).await.unwrap();
    tx.renew_lease(id, Epoch(1), attempt, minute).await.unwrap();
    tx.lock_changed_task_instances(run.id, now(), 100).await.unwrap();
    tx.lock_expired_leases(minute, 100).await.unwrap();
    tx.lock_resends(now(), 100).await.unwrap();
    tx.lock_due_waits(now(), 100).await.unwrap();
    tx.next_due_task_instance_at().await.unwrap();
    tx.queued_task_instances(&"default".into(), 10).await.unwrap();
    tx.active_tasks().await.unwrap();
    tx.candidates(&CandidateQuery { limit: 10, ..CandidateQuery::default() }).await.unwrap();
    let starving = CandidateQuery {
        limit: 10,
        starved_pools: vec!["p".into()],
        starved_runs: vec![run.id],
        starved_tasks: vec![("d".into(), "t".into()); 3],
        starved_tasks_of_runs: vec![(run.id, "t".into())],
        except: vec![id],
    };
    tx.candidates(&starving).await.unwrap();
    tx.dag_runs_to_advance(now(), 10).await.unwrap();
    tx.dag_runs_to_start(now(), 10).await.unwrap();
    tx.next_due_run_at(now()).await.unwrap();
    tx.lock_due_dags(now(), 10).await.unwrap();
    tx.newest_dag_runs(&["d".into()], 10).await.unwrap();
    for guard in [Guard::ChangeSeq(0), Guard::Any, Guard::Epoch(TaskInstanceState::Queued, Epoch(1))] {
        let patch = TaskInstancePatch { is_dirty: Some(true), ..TaskInstancePatch::default() };
        let writes: Vec<TaskInstanceWrite> =
            rows.iter().map(|row| TaskInstanceWrite { id: row.id, guard, patch: patch.clone() }).collect();
        tx.update_task_instances(&writes).await.unwrap();
        tx.update_task_instances(&writes[..1]).await.unwrap();
    }
}

#[tokio::test]
async fn on_sqlite_no_hot_statement_reads_a_whole_table() {
    let backend = testing::sqlite().await;
    let (run, rows) = filled(&backend).await;
    let connection = match backend.sql.database() {
        Database::Sqlite(store) => store.begin(TxMode::Write).await.unwrap(),
        Database::Postgres(_) => unreachable!("it is SQLite"),
    };
    let mut tx = SqlTx::new(connection, TxMode::Write, backend.sql.clock(), true);
    tx.record_texts();
    run_hot_statements(&mut tx, &run, &rows).await;
    let texts = tx.recorded_texts();
    assert!(texts.len() > 20);
    drop(tx);
    let Database::Sqlite(store) = backend.sql.database() else { unreachable!("it is SQLite") };
    for text in texts.keys() {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"));
        let plan = sqlx::query(explain).fetch_all(store.writer()).await.unwrap();
        for step in plan {
            let step: String = step.get("detail");
            let is_full_scan = step.starts_with("SCAN ")
                && !step.contains("USING INDEX")
                && !step.contains("USING COVERING INDEX")
                && ["task_instance", "ti", "dag_run", "r", "dag", "d", "t"]
                    .contains(&step.split(' ').nth(1).unwrap_or_default());
            assert!(!is_full_scan, "{step}\n{text}");
            let reads_a_whole_index = step.starts_with("SCAN ")
                && (step.contains("sqlite_autoindex") || step.contains("dag_run_by_"));
            assert!(!reads_a_whole_index, "{step}\n{text}");
        }
    }
}

#[tokio::test]
async fn on_postgres_no_hot_statement_reads_a_whole_table() {
    let Some(backend) = testing::postgres().await else { return };
    let (run, rows) = filled(&backend).await;
    let Database::Postgres(store) = backend.sql.database() else { unreachable!("it is PostgreSQL") };
    for table in ["dag", "dag_run", "task_instance"] {
        sqlx::query(AssertSqlSafe(format!("ANALYZE {table}"))).execute(store.pool()).await.unwrap();
    }
    let connection = store.begin(TxMode::Write).await.unwrap();
    let mut tx = SqlTx::new(connection, TxMode::Write, backend.sql.clock(), true);
    tx.record_texts();
    run_hot_statements(&mut tx, &run, &rows).await;
    let texts = tx.recorded_texts();
    drop(tx);
    let mut connection = store.pool().acquire().await.unwrap();
    for (n, (text, types)) in texts.iter().enumerate() {
        // A generic plan is what a statement prepared for long has.
        let declared = if types.is_empty() { String::new() } else { format!("({})", types.join(", ")) };
        let prepare = format!("PREPARE hot{n} {declared} AS {text}");
        sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *connection).await.unwrap();
        sqlx::raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut *connection).await.unwrap();
        let nulls = vec!["NULL"; types.len()].join(", ");
        let call = if types.is_empty() { format!("hot{n}") } else { format!("hot{n}({nulls})") };
        let explain = format!("EXPLAIN EXECUTE {call}");
        let plan = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(!plan.contains("Seq Scan on task_instance"), "{plan}\n{text}");
    }
}
