//! A reaper, a renewing worker, a finishing worker and a second claimant fight over one try, again and again. However
//! the database interleaves them, no epoch has two accepted ends (DESIGN §4).

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gust_model::{
    AttemptId, Epoch, TaskInstanceId, TaskInstanceState as State,
    record::{TaskInstance, Timestamp},
};
use gust_ports::metastore::{
    Guard, LeasePatch, MetastoreError, TaskInstancePatch, TaskInstanceWrite, TxMode, transact,
};

use crate::{
    backend::Backend,
    behaviours,
    fixtures::{id, one_run, put_task_instances, queued},
};

behaviours! { where_writers_run_side_by_side:
    no_epoch_has_two_ends_when_reaper_and_workers_race
    of_racing_inserts_of_one_run_exactly_one_succeeds
    racing_writers_lose_no_update
}

/// How many leases are forced to a race.
const ROUNDS: usize = 500;
/// How many of them run beside each other.
const LANES: usize = 4;

/// Which ends were accepted, by try and epoch.
type Ends = Mutex<BTreeMap<(TaskInstanceId, Epoch), Vec<&'static str>>>;

async fn write(
    backend: &Backend,
    id: TaskInstanceId,
    guard: Guard,
    patch: TaskInstancePatch,
) -> Result<bool, MetastoreError> {
    transact::<bool, MetastoreError>(&*backend.store, TxMode::Write, |tx| {
        let write = [TaskInstanceWrite { id, guard, patch: patch.clone() }];
        Box::pin(async move { Ok(!tx.update_task_instances(&write).await?.is_empty()) })
    })
    .await
}

fn end(state: State) -> TaskInstancePatch {
    TaskInstancePatch {
        state: Some(state),
        lease: LeasePatch::End,
        is_dirty: Some(true),
        ..TaskInstancePatch::default()
    }
}

/// The worker ends its try.
async fn finish(backend: &Backend, row: &TaskInstance, attempt: AttemptId, ends: &Ends) {
    if write(backend, row.id, Guard::Fence(row.epoch, attempt), end(State::Success)).await.unwrap() {
        ends.lock().unwrap().entry((row.id, row.epoch)).or_default().push("worker");
    }
}

/// The worker renews, with leases so short that they lapse between any two statements.
async fn renew(backend: &Backend, row: &TaskInstance, attempt: AttemptId) {
    for ttl_us in [0, 300, 0] {
        let ttl = Duration::from_micros(ttl_us);
        let id = row.id;
        let epoch = row.epoch;
        transact::<Option<Timestamp>, MetastoreError>(&*backend.store, TxMode::Write, |tx| {
            Box::pin(async move {
                Ok(tx.renew_lease(id, epoch, attempt, ttl).await?.map(|renewal| renewal.expires_at))
            })
        })
        .await
        .unwrap();
    }
}

/// A reaper locks expired leases and ends what it holds; every third time it lets go instead.
async fn reap(backend: &Backend, turn: usize, ends: &Ends) {
    let reaped =
        transact::<Vec<(TaskInstanceId, Epoch)>, MetastoreError>(&*backend.store, TxMode::Write, |tx| {
            Box::pin(async move {
                let mut reaped = Vec::new();
                for expired in tx.lock_expired_leases(Duration::ZERO, 2).await? {
                    assert_eq!(expired.state, State::Running, "what is locked is what was asked for");
                    let guard = if turn.is_multiple_of(2) {
                        Guard::LeaseExpired
                    } else {
                        Guard::ChangeSeq(expired.change_seq)
                    };
                    let write = [TaskInstanceWrite { id: expired.id, guard, patch: end(State::Failed) }];
                    if !tx.update_task_instances(&write).await?.is_empty() {
                        reaped.push((expired.id, expired.epoch));
                    }
                }
                Ok(reaped)
            })
        })
        .await
        .unwrap();
    for (id, epoch) in reaped {
        ends.lock().unwrap().entry((id, epoch)).or_default().push("reaper");
    }
    if turn.is_multiple_of(3) {
        let mut idle = backend.write().await;
        idle.lock_expired_leases(Duration::ZERO, 1).await.unwrap();
        drop(idle);
    }
}

/// Somebody claims the try although it was claimed: the hint came twice.
async fn claim_again(backend: &Backend, row: &TaskInstance) {
    let (id, epoch) = (row.id, row.epoch);
    let attempt = AttemptId(crate::fixtures::id());
    let claimed = transact::<bool, MetastoreError>(&*backend.store, TxMode::Write, |tx| {
        Box::pin(async move {
            let claimed = tx.claim_task_instance(id, epoch, attempt, Duration::ZERO, "twice", 2).await?;
            Ok(claimed.is_some())
        })
    })
    .await
    .unwrap();
    assert!(!claimed);
}

async fn no_epoch_has_two_ends_when_reaper_and_workers_race(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let ends = Ends::default();
    let by_worker = AtomicBool::new(false);
    let by_reaper = AtomicBool::new(false);
    let lane = async |lane: usize| {
        for round in 0..ROUNDS / LANES {
            let row = queued(&run, &format!("t{lane}-{round}"));
            put_task_instances(backend, std::slice::from_ref(&row)).await;
            let attempt = AttemptId(id());
            let mut tx = backend.write().await;
            let ttl = Duration::from_micros(if round % 2 == 0 { 0 } else { 400 });
            tx.claim_task_instance(row.id, row.epoch, attempt, ttl, "h", 1).await.unwrap().unwrap();
            tx.commit().await.unwrap();
            // Who is polled first changes from round to round; the database does the rest.
            match round % 3 {
                0 => {
                    tokio::join!(
                        reap(backend, round, &ends),
                        renew(backend, &row, attempt),
                        finish(backend, &row, attempt, &ends),
                        claim_again(backend, &row),
                    );
                }
                1 => {
                    tokio::join!(
                        finish(backend, &row, attempt, &ends),
                        reap(backend, round, &ends),
                        renew(backend, &row, attempt),
                    );
                }
                _ => {
                    tokio::join!(
                        renew(backend, &row, attempt),
                        async {
                            renew(backend, &row, attempt).await;
                            finish(backend, &row, attempt, &ends).await;
                        },
                        reap(backend, round, &ends),
                    );
                }
            }
            let stored = backend.read().await.task_instance(row.id).await.unwrap().unwrap();
            let accepted = ends.lock().unwrap().get(&(row.id, row.epoch)).cloned().unwrap_or_default();
            let expected = match stored.state {
                State::Success => "worker",
                // Another lane's reaper may have committed this end and not said so yet.
                State::Failed => "reaper",
                other => panic!("{other}: a worker that finishes is refused only if the try was ended"),
            };
            assert!(accepted.len() <= 1, "{accepted:?}");
            assert!(accepted.iter().all(|who| *who == expected), "{accepted:?} but {}", stored.state);
            assert_eq!(stored.lease, None);
            by_worker.fetch_or(expected == "worker", Ordering::Relaxed);
            by_reaper.fetch_or(expected == "reaper", Ordering::Relaxed);
        }
    };
    futures::future::join_all((0..LANES).map(lane)).await;
    let ends = ends.into_inner().unwrap();
    assert_eq!(ends.len(), ROUNDS, "every try has an end");
    assert!(ends.values().all(|who| who.len() == 1), "and only one");
    assert!(by_worker.into_inner() && by_reaper.into_inner(), "both sides won some");
}

async fn of_racing_inserts_of_one_run_exactly_one_succeeds(backend: &Backend) {
    let dag = crate::fixtures::dag("d");
    crate::fixtures::put_dag(backend, &dag).await;
    for day in 0..20 {
        let inserts = (0..5).map(|_| {
            let run = crate::fixtures::run(&dag, day);
            async move {
                transact::<bool, MetastoreError>(&*backend.store, TxMode::Write, |tx| {
                    let run = run.clone();
                    Box::pin(async move { tx.insert_dag_run(&run).await })
                })
                .await
                .unwrap()
            }
        });
        let inserted = futures::future::join_all(inserts).await;
        assert_eq!(inserted.iter().filter(|inserted| **inserted).count(), 1);
    }
}

async fn racing_writers_lose_no_update(backend: &Backend) {
    const WRITERS: usize = 6;
    const WRITES: usize = 10;
    let (_, run) = one_run(backend).await;
    let row = queued(&run, "t");
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let writer = async || {
        for _ in 0..WRITES {
            // Read without a lock, write guarded by what was read, again until it holds.
            loop {
                let seen = backend.read().await.task_instance(row.id).await.unwrap().unwrap();
                let patch = TaskInstancePatch {
                    send_count: Some(seen.send_count + 1),
                    ..TaskInstancePatch::default()
                };
                if write(backend, row.id, Guard::ChangeSeq(seen.change_seq), patch).await.unwrap() {
                    break;
                }
            }
        }
    };
    futures::future::join_all((0..WRITERS).map(|_| writer())).await;
    let stored = backend.read().await.task_instance(row.id).await.unwrap().unwrap();
    assert_eq!(stored.send_count, i32::try_from(WRITERS * WRITES).unwrap());
}
