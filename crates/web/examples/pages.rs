//! Serves the pages over a seeded site in memory, for looking at them: `cargo run -p gust-web --example pages`. The
//! running task instances go on, write log lines and end, so that the live parts move.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "A tool for those who work on the pages."
)]

#[path = "../tests/seed/mod.rs"]
mod seed;

use std::{sync::Arc, time::Duration};

use gust_model::{DagRunState, Epoch, TaskInstanceState};
use gust_ports::{
    Cipher, CipherError, Clock, ObjectStore, RandomIds, SystemClock, Wake, Wakeups,
    memory::{MemoryMetastore, MemoryObjectStore, MemoryWakeups},
    metastore::{
        DagRunFilter, Guard, Page, TaskInstanceFilter, TaskInstancePatch, TaskInstanceWrite, TxMode,
    },
};
use gust_task_log::{ChunkName, TryLog, encode_chunk};
use gust_web::{AppState, Auth, AuthMode, Settings};
use serde_json::json;

/// Seals by reversing: nothing secret is here.
struct Reverse;

impl Cipher for Reverse {
    fn seal(&self, _place: &str, plain: &str) -> Result<String, CipherError> {
        Ok(plain.chars().rev().collect())
    }

    fn open(&self, _place: &str, sealed: &str) -> Result<String, CipherError> {
        Ok(sealed.chars().rev().collect())
    }
}

#[tokio::main]
async fn main() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let seeder = Arc::new(seed::Seeder {
        metastore: Arc::new(MemoryMetastore::new(Arc::clone(&clock))),
        objects: Arc::new(MemoryObjectStore::new()),
        ids: Arc::new(RandomIds),
        now: seed::now(),
    });
    let mut dags = seed::dags();
    if std::env::args().any(|arg| arg == "--hostile") {
        dags.push(seed::hostile_dag());
    }
    if std::env::args().any(|arg| arg == "--large") {
        dags.push(seed::wide_dag(300));
    }
    seeder.site(&dags).await;
    if std::env::args().any(|arg| arg == "--large") {
        seeder.many_mapped(10_000).await;
    }
    let wakeups: Arc<dyn Wakeups> = Arc::new(MemoryWakeups::new(1024));
    let state = AppState::new(
        Arc::clone(&seeder.metastore),
        Arc::clone(&seeder.objects),
        Arc::clone(&wakeups),
        Arc::new(RandomIds),
        clock,
        Arc::new(Reverse),
        Auth::new(AuthMode::AllAdmins, &[7; 32]).unwrap(),
        Settings::default(),
    );
    tokio::spawn(go_on(seeder, wakeups));
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(0_u16);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    println!("http://{}/", listener.local_addr().unwrap());
    gust_web::serve(listener, state, std::future::pending()).await.unwrap();
}

/// Lets running task instances log, end, and the next ones begin.
async fn go_on(seeder: Arc<seed::Seeder>, wakeups: Arc<dyn Wakeups>) {
    use TaskInstanceState as S;
    let mut step = 0_u32;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        step += 1;
        let mut tx = seeder.metastore.begin(TxMode::Write).await.unwrap();
        let filter = DagRunFilter { states: vec![DagRunState::Running], ..DagRunFilter::default() };
        for run in tx.dag_runs(&filter, &Page::first(50)).await.unwrap().items {
            let mut has_begun = false;
            let rows = TaskInstanceFilter { dag_run_ids: vec![run.id], ..TaskInstanceFilter::default() };
            for row in tx.task_instances(&rows, &Page::first(200)).await.unwrap().items {
                let now = tx.now().await.unwrap();
                let patch = match row.state {
                    S::Running => {
                        log_line(&*seeder.objects, &row, step).await;
                        if !step.is_multiple_of(7) {
                            continue;
                        }
                        TaskInstancePatch {
                            state: Some(S::Success),
                            end_date: Some(Some(now)),
                            ..TaskInstancePatch::default()
                        }
                    }
                    S::None if step.is_multiple_of(7) && !has_begun => {
                        has_begun = true;
                        TaskInstancePatch {
                            state: Some(S::Running),
                            start_date: Some(Some(now)),
                            queued_at: Some(Some(now)),
                            try_number: Some(1),
                            ..TaskInstancePatch::default()
                        }
                    }
                    _ => continue,
                };
                let write = TaskInstanceWrite { id: row.id, guard: Guard::Any, patch };
                tx.update_task_instances(&[write]).await.unwrap();
            }
            wakeups
                .wake(Wake::Run { dag_id: run.dag_id.clone(), run_id: run.run_id.clone(), plan: false })
                .await;
        }
        tx.commit().await.unwrap();
    }
}

async fn log_line(objects: &dyn ObjectStore, row: &gust_model::record::TaskInstance, step: u32) {
    let line = json!({
        "timestamp": seed::now().to_rfc3339(), "level": "info", "logger": "task.stdout",
        "event": format!("still at work, second {step}"),
    });
    let log = TryLog { try_number: 1, ..TryLog::of(row) };
    let key = log.key(ChunkName { epoch: Epoch(1), seq: step, is_end: false }).unwrap();
    let _ = objects.create(&key, encode_chunk((line.to_string() + "\n").as_bytes()).unwrap()).await.unwrap();
}
