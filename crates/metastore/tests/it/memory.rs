//! What only the in-memory metastore does: faults on demand, fair waits, one course of events for one course of calls.

use std::{
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use futures::{FutureExt, future::join_all, poll};
use gust_model::{DagRunId, record::Pool};
use gust_ports::{
    Clock, Metastore, MetastoreError,
    memory::{Fault, FaultHook, FaultPoint, ManualClock, MemoryMetastore},
    metastore::{LockWait, TxMode},
};

use crate::fixtures::{at, dag, pool, run, version};

/// Does at a point what its function says, and notes every point.
struct Script {
    seen: Mutex<Vec<FaultPoint>>,
    decide: fn(FaultPoint) -> Fault,
}

impl FaultHook for Script {
    fn at(&self, point: FaultPoint) -> Fault {
        self.seen.lock().unwrap().push(point);
        (self.decide)(point)
    }
}

fn scripted(decide: fn(FaultPoint) -> Fault) -> (MemoryMetastore, Arc<Script>, ManualClock) {
    let script = Arc::new(Script { seen: Mutex::default(), decide });
    let clock = ManualClock::new(at(0));
    (MemoryMetastore::with_faults(Arc::new(clock.clone()), script.clone()), script, clock)
}

fn plain() -> (MemoryMetastore, ManualClock) {
    let clock = ManualClock::new(at(0));
    (MemoryMetastore::new(Arc::new(clock.clone())), clock)
}

async fn pools(store: &MemoryMetastore) -> Vec<Pool> {
    store.begin(TxMode::Read).await.unwrap().pools().await.unwrap()
}

#[tokio::test]
async fn hook_sees_every_beginning_statement_and_commit() {
    let (store, script, _) = scripted(|_| Fault::None);
    let mut tx = store.begin(TxMode::Write).await.unwrap();
    tx.put_pool(&pool("p", 1)).await.unwrap();
    tx.now().await.unwrap();
    tx.commit().await.unwrap();
    let expected = [
        FaultPoint::Begin,
        FaultPoint::Statement { transaction: 1, name: "put_pool" },
        FaultPoint::Statement { transaction: 1, name: "now" },
        FaultPoint::Commit { transaction: 1 },
    ];
    assert_eq!(*script.seen.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_statement_that_fails_rolls_everything_back_and_ends_the_transaction() {
    for (name, decide) in [
        ("conflict", (|point| fault_at_now(point, Fault::Conflict)) as fn(FaultPoint) -> Fault),
        ("unavailable", |point| fault_at_now(point, Fault::Unavailable)),
        ("answer lost", |point| fault_at_now(point, Fault::AnswerLost)),
    ] {
        let (store, _, _) = scripted(decide);
        let mut tx = store.begin(TxMode::Write).await.unwrap();
        tx.put_pool(&pool("p", 1)).await.unwrap();
        let error = tx.now().await.unwrap_err();
        assert_eq!((error.is_conflict(), error.is_outage()), (name == "conflict", name != "conflict"));
        assert!(matches!(tx.put_pool(&pool("q", 1)).await, Err(MetastoreError::Refused(_))));
        assert!(matches!(tx.commit().await, Err(MetastoreError::Refused(_))));
        assert_eq!(pools(&store).await, []);
    }
}

fn fault_at_now(point: FaultPoint, fault: Fault) -> Fault {
    if matches!(point, FaultPoint::Statement { name: "now", .. }) { fault } else { Fault::None }
}

fn fault_at_commit(point: FaultPoint, fault: Fault) -> Fault {
    if matches!(point, FaultPoint::Commit { .. }) { fault } else { Fault::None }
}

#[tokio::test]
async fn a_commit_that_fails_leaves_no_trace() {
    for decide in [(|point| fault_at_commit(point, Fault::Conflict)) as fn(FaultPoint) -> Fault, |point| {
        fault_at_commit(point, Fault::Unavailable)
    }] {
        let (store, _, _) = scripted(decide);
        let mut tx = store.begin(TxMode::Write).await.unwrap();
        tx.put_pool(&pool("p", 1)).await.unwrap();
        assert!(tx.commit().await.is_err());
        assert_eq!(pools(&store).await, []);
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_there_all_the_same() {
    let (store, _, _) = scripted(|point| fault_at_commit(point, Fault::AnswerLost));
    let mut tx = store.begin(TxMode::Write).await.unwrap();
    tx.put_pool(&pool("p", 1)).await.unwrap();
    assert!(tx.commit().await.unwrap_err().is_outage());
    assert_eq!(pools(&store).await, [pool("p", 1)]);
}

#[tokio::test]
async fn a_yield_lets_others_run_and_changes_nothing() {
    let (store, _, _) = scripted(|point| fault_at_now(point, Fault::Yield));
    let mut tx = store.begin(TxMode::Read).await.unwrap();
    let mut now = Box::pin(tx.now());
    assert!(poll!(&mut now).is_pending());
    assert_eq!(now.await.unwrap(), at(0));
}

#[tokio::test]
async fn a_delay_lasts_on_the_clock() {
    let (store, _, clock) = scripted(|point| fault_at_now(point, Fault::Delay(Duration::from_secs(5))));
    let mut tx = store.begin(TxMode::Read).await.unwrap();
    let mut now = Box::pin(tx.now());
    assert!(poll!(&mut now).is_pending());
    clock.advance(Duration::from_secs(4));
    assert!(poll!(&mut now).is_pending());
    clock.advance(Duration::from_secs(1));
    assert_eq!(now.await.unwrap(), at(5));
}

#[tokio::test]
async fn the_databases_clock_is_the_port() {
    let (store, clock) = plain();
    let mut tx = store.begin(TxMode::Read).await.unwrap();
    assert_eq!(tx.now().await.unwrap(), clock.now());
    clock.advance(Duration::from_micros(1));
    assert_eq!(tx.now().await.unwrap(), clock.now());
}

#[tokio::test]
async fn a_transaction_that_only_reads_can_neither_write_nor_lock() {
    let (store, _) = plain();
    let mut tx = store.begin(TxMode::Read).await.unwrap();
    assert!(matches!(tx.put_pool(&pool("p", 1)).await, Err(MetastoreError::Refused(_))));
    let mut tx = store.begin(TxMode::Write).await.unwrap();
    tx.put_pool(&pool("p", 1)).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.begin(TxMode::Read).await.unwrap();
    assert!(matches!(tx.lock_pools().await, Err(MetastoreError::Refused(_))));
}

async fn store_with_runs(count: i64) -> (MemoryMetastore, Vec<DagRunId>) {
    let (store, _) = plain();
    let dag = dag("d");
    let mut tx = store.begin(TxMode::Write).await.unwrap();
    tx.put_dag(&dag).await.unwrap();
    tx.insert_dag_version(&version(&dag)).await.unwrap();
    let mut ids = Vec::new();
    for day in 0..count {
        let run = run(&dag, day);
        tx.insert_dag_run(&run).await.unwrap();
        ids.push(run.id);
    }
    tx.commit().await.unwrap();
    (store, ids)
}

#[tokio::test]
async fn waiters_get_a_lock_in_the_order_of_their_arrival_and_nobody_cuts_in() {
    let (store, runs) = store_with_runs(1).await;
    let mut holder = store.begin(TxMode::Write).await.unwrap();
    holder.lock_dag_run(runs[0], LockWait::Wait).await.unwrap();
    let order = Mutex::new(Vec::new());
    let mut waiters: Vec<_> = (0..5)
        .map(|n| {
            let (store, order, run) = (&store, &order, runs[0]);
            Box::pin(async move {
                let mut tx = store.begin(TxMode::Write).await.unwrap();
                tx.lock_dag_run(run, LockWait::Wait).await.unwrap().unwrap();
                order.lock().unwrap().push(n);
                tx.commit().await.unwrap();
            })
        })
        .collect();
    for waiter in &mut waiters {
        assert!(poll!(waiter).is_pending());
    }
    holder.commit().await.unwrap();
    let mut late = store.begin(TxMode::Write).await.unwrap();
    assert_eq!(
        late.lock_dag_run(runs[0], LockWait::SkipLocked).await.unwrap(),
        None,
        "it is the first one's"
    );
    // Polled in the opposite order, they still get it in the order of their arrival.
    waiters.reverse();
    join_all(waiters).await;
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_statement_given_up_while_it_waits_leaves_the_queue() {
    let (store, runs) = store_with_runs(1).await;
    let mut holder = store.begin(TxMode::Write).await.unwrap();
    holder.lock_dag_run(runs[0], LockWait::Wait).await.unwrap();
    let mut impatient = store.begin(TxMode::Write).await.unwrap();
    {
        let mut waiting = Box::pin(impatient.lock_dag_run(runs[0], LockWait::Wait));
        assert!(poll!(&mut waiting).is_pending());
    }
    let mut next = store.begin(TxMode::Write).await.unwrap();
    let mut waiting = Box::pin(next.lock_dag_run(runs[0], LockWait::Wait));
    assert!(poll!(&mut waiting).is_pending());
    holder.commit().await.unwrap();
    assert!(matches!(poll!(&mut waiting), Poll::Ready(Ok(Some(_)))));
}

#[tokio::test]
async fn whoever_closes_a_circle_of_any_length_loses() {
    let (store, runs) = store_with_runs(3).await;
    let holding = async |run: DagRunId| {
        let mut tx = store.begin(TxMode::Write).await.unwrap();
        tx.lock_dag_run(run, LockWait::Wait).await.unwrap();
        tx
    };
    let (mut a, mut b, mut c) = (holding(runs[0]).await, holding(runs[1]).await, holding(runs[2]).await);
    let mut of_a = Box::pin(a.lock_dag_run(runs[1], LockWait::Wait));
    assert!(poll!(&mut of_a).is_pending());
    let mut of_b = Box::pin(b.lock_dag_run(runs[2], LockWait::Wait));
    assert!(poll!(&mut of_b).is_pending());
    let lost = c.lock_dag_run(runs[0], LockWait::Wait).await;
    assert!(matches!(lost, Err(MetastoreError::Conflict(_))), "{lost:?}");
    // The loser let go of everything, as in PostgreSQL, though nobody rolled it back yet.
    assert!(of_b.now_or_never().unwrap().is_ok());
    assert!(of_a.as_mut().now_or_never().is_none(), "b still holds its run");
    drop(b);
    assert!(of_a.now_or_never().unwrap().is_ok());
}

#[tokio::test]
async fn the_same_calls_take_the_same_course() {
    async fn course() -> Vec<String> {
        let (store, runs) = store_with_runs(4).await;
        let trace = Mutex::new(Vec::new());
        let workers = (0..6).map(|n| {
            let (store, runs, trace) = (&store, &runs, &trace);
            async move {
                for step in 0..8 {
                    let mut tx = store.begin(TxMode::Write).await.unwrap();
                    let first = tx.lock_dag_run(runs[(n + step) % 4], LockWait::Wait).await;
                    tokio::task::yield_now().await;
                    let second = match first {
                        Ok(_) => tx.lock_dag_run(runs[(n * step) % 4], LockWait::Wait).await,
                        Err(error) => Err(error),
                    };
                    let outcome = second.map(|run| run.map(|run| run.run_id.clone()));
                    trace.lock().unwrap().push(format!("{n}.{step} {outcome:?}"));
                    drop(tx);
                }
            }
        });
        join_all(workers).await;
        trace.into_inner().unwrap()
    }
    let first = course().await;
    assert!(first.iter().any(|line| line.contains("deadlock")), "the course has deadlocks in it");
    assert_eq!(first, course().await);
}
