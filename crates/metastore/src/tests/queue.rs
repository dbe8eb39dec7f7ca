//! Wake-ups over PostgreSQL, and the metastore as a task queue.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use gust_model::{
    TaskInstanceState,
    message::{Addressed, WorkKind, WorkMessage},
    record::{Callback, CallbackState},
};
use gust_ports::{Metastore, SystemClock, TaskQueue as _, Wake, Wakeups, metastore::TxMode};
use uuid::Uuid;

use super::fixtures::{dag, now, run, store, task_instance};
use crate::{MetastoreQueue, testing};

#[tokio::test]
async fn wake_ups_reach_other_processes_and_ones_own_listeners_once() {
    let Some(backend) = testing::postgres().await else { return };
    let here = backend.sql.wakeups().await.unwrap().unwrap();
    let there = backend.sql.wakeups().await.unwrap().unwrap();
    let (mut own, mut other) = (here.listen(), there.listen());
    let wakes = [Wake::Queued, Wake::Dag { dag_id: "ä\"b".into() }, Wake::Admission];
    for wake in &wakes {
        here.wake(wake.clone()).await;
    }
    for wake in &wakes {
        assert_eq!(other.next().await.as_ref(), Some(wake));
        assert_eq!(own.next().await.as_ref(), Some(wake));
    }
}

#[tokio::test]
async fn a_lost_listening_connection_is_made_again_and_everybody_looks() {
    let Some(backend) = testing::postgres().await else { return };
    let (here, there) =
        (backend.sql.wakeups().await.unwrap().unwrap(), backend.sql.wakeups().await.unwrap().unwrap());
    let mut heard = there.listen();
    let crate::store::Database::Postgres(postgres) = backend.sql.database() else {
        unreachable!("PostgreSQL")
    };
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
         AND pid <> pg_backend_pid() AND query LIKE '%LISTEN%'",
    )
    .execute(postgres.pool())
    .await
    .unwrap();
    assert_eq!(heard.next().await, Some(Wake::Admission));
    // It listens again by now or soon; a wake-up in between may be lost.
    let wake = Wake::Dag { dag_id: "d".into() };
    let heard = async {
        heard.by_ref().any(|heard| std::future::ready(heard == Wake::Dag { dag_id: "d".into() })).await
    };
    let woken = async {
        loop {
            here.wake(wake.clone()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        was_heard = heard => assert!(was_heard),
        () = woken => {}
    }
}

/// Wake-ups in one process.
struct Local(tokio::sync::broadcast::Sender<Wake>);

#[async_trait::async_trait]
impl Wakeups for Local {
    async fn wake(&self, wake: Wake) {
        drop(self.0.send(wake));
    }

    fn listen(&self) -> gust_ports::WakeStream {
        let stream = tokio_stream::wrappers::BroadcastStream::new(self.0.subscribe());
        Box::pin(stream.filter_map(|wake| async move { wake.ok() }))
    }
}

fn queue(store: &Arc<dyn Metastore>) -> MetastoreQueue {
    let wakeups = Arc::new(Local(tokio::sync::broadcast::channel(16).0));
    MetastoreQueue::new(Arc::clone(store), wakeups, Arc::new(SystemClock::default()), "default".into())
}

const NO_WAIT: Duration = Duration::ZERO;

#[tokio::test]
async fn queued_rows_and_callbacks_are_delivered_once_each_until_sent_again() {
    let backend = testing::sqlite().await;
    let dag = dag("d");
    let run = run(&dag, "r");
    let mut heavy = task_instance(&run, "heavy", TaskInstanceState::Queued);
    heavy.priority_weight = 9;
    let light = task_instance(&run, "light", TaskInstanceState::Queued);
    let mut elsewhere = task_instance(&run, "elsewhere", TaskInstanceState::Queued);
    elsewhere.queue = "gpu".into();
    let rows = [light.clone(), heavy.clone(), elsewhere.clone()];
    store(&*backend.store, &dag, &run, &rows).await;
    let callback = Callback {
        id: gust_model::CallbackId(Uuid::now_v7()),
        state: CallbackState::Queued,
        bundle_name: dag.bundle_name.clone(),
        bundle_version: None,
        relative_fileloc: "dag.py".to_owned(),
        dag_id: dag.dag_id.clone(),
        run_id: run.run_id.clone(),
        task_instance_id: None,
        request: serde_json::json!({"type": "DagCallbackRequest"}),
        created_at: now(),
        epoch: gust_model::Epoch(0),
        lease: None,
        error: None,
    };
    let mut tx = backend.store.begin(TxMode::Write).await.unwrap();
    tx.insert_callback(&callback).await.unwrap();
    tx.commit().await.unwrap();

    let queue = queue(&backend.store);
    let received = |limit| {
        let queue = &queue;
        async move {
            let found = queue.receive(&"default".into(), limit, NO_WAIT).await.unwrap();
            found.into_iter().map(|delivery| (delivery.message.kind, delivery.message.id)).collect::<Vec<_>>()
        }
    };
    assert_eq!(received(2).await, [(WorkKind::Callback, callback.id.0), (WorkKind::Try, heavy.id.0)]);
    assert_eq!(received(10).await, [(WorkKind::Try, light.id.0)]);
    assert_eq!(received(10).await, []);
    let again = WorkMessage { kind: WorkKind::Try, id: heavy.id.0, epoch: heavy.epoch };
    let refused = queue.send(&[Addressed { queue: "default".into(), message: again }]).await.unwrap();
    assert_eq!(refused, []);
    assert_eq!(received(10).await, [(WorkKind::Try, heavy.id.0)]);
    let gpu = queue.receive(&"gpu".into(), 10, NO_WAIT).await.unwrap();
    assert_eq!(gpu.len(), 1);
    assert_eq!(gpu[0].message.id, elsewhere.id.0);
}

#[tokio::test]
async fn a_waiting_receiver_is_woken_by_a_send() {
    let backend = testing::sqlite().await;
    let queue = Arc::new(queue(&backend.store));
    let receiving = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.receive(&"default".into(), 1, Duration::from_mins(1)).await.unwrap() }
    });
    let dag = dag("d");
    let run = run(&dag, "r");
    let row = task_instance(&run, "t", TaskInstanceState::Queued);
    store(&*backend.store, &dag, &run, std::slice::from_ref(&row)).await;
    let message = WorkMessage { kind: WorkKind::Try, id: row.id.0, epoch: row.epoch };
    queue.send(&[Addressed { queue: "default".into(), message }]).await.unwrap();
    let received = receiving.await.unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].message, message);
}
