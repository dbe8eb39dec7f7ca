//! What comes due by time: re-sends, ends of waits, and the moment at which something next does.

use std::time::Duration;

use gust_model::{AttemptId, MapIndex, TaskInstanceState as State, record::TaskInstance};

use crate::{
    backend::Backend,
    behaviours,
    fixtures::{at, id, in_state, one_run, put_task_instances, queued},
};

behaviours! { everywhere:
    resends_are_queued_and_their_moment_has_come
    due_waits_are_deferred_or_awaiting_and_their_moment_has_come
    next_due_task_instance_is_the_earliest_of_all_kinds
    queued_task_instances_in_the_order_of_their_claims
}

behaviours! { where_writers_run_side_by_side:
    what_somebody_has_locked_is_skipped
}

async fn resends_are_queued_and_their_moment_has_come(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = |task: &str, state, resend: Option<i64>| TaskInstance {
        resend_at: resend.map(at),
        ..in_state(&run, task, state)
    };
    let rows = [
        row("second", State::Queued, Some(100)),
        row("first", State::Queued, Some(50)),
        row("later", State::Queued, Some(101)),
        row("never", State::Queued, None),
        row("running", State::Running, Some(1)),
    ];
    put_task_instances(backend, &rows).await;
    let mut tx = backend.write().await;
    assert_eq!(tx.lock_resends(at(100), 10).await.unwrap(), [rows[1].clone(), rows[0].clone()]);
    assert_eq!(tx.lock_resends(at(100), 1).await.unwrap(), [rows[1].clone()]);
    assert_eq!(tx.lock_resends(at(0), 10).await.unwrap(), []);
}

async fn due_waits_are_deferred_or_awaiting_and_their_moment_has_come(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = |task: &str, state, due: Option<i64>| TaskInstance {
        due_at: due.map(at),
        ..in_state(&run, task, state)
    };
    let rows = [
        row("deferred", State::Deferred, Some(100)),
        row("awaiting", State::AwaitingInput, Some(50)),
        row("later", State::Deferred, Some(101)),
        row("never", State::Deferred, None),
        row("retry", State::UpForRetry, Some(1)),
    ];
    put_task_instances(backend, &rows).await;
    let mut tx = backend.write().await;
    assert_eq!(tx.lock_due_waits(at(100), 10).await.unwrap(), [rows[1].clone(), rows[0].clone()]);
    assert_eq!(tx.lock_due_waits(at(100), 1).await.unwrap(), [rows[1].clone()]);
}

async fn next_due_task_instance_is_the_earliest_of_all_kinds(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    assert_eq!(backend.read().await.next_due_task_instance_at().await.unwrap(), None);
    let leased = queued(&run, "leased");
    let irrelevant = [
        TaskInstance { resend_at: Some(at(1)), ..in_state(&run, "success", State::Success) },
        TaskInstance { due_at: Some(at(1)), ..in_state(&run, "retry", State::UpForRetry) },
        leased.clone(),
    ];
    put_task_instances(backend, &irrelevant).await;
    let mut tx = backend.write().await;
    let ttl = Duration::from_mins(10);
    let claimed = tx.claim_task_instance(leased.id, leased.epoch, AttemptId(id()), ttl, "h", 1).await;
    let lease_end = claimed.unwrap().unwrap().lease.unwrap().expires_at;
    tx.commit().await.unwrap();
    let mut tx = backend.write().await;
    assert_eq!(tx.next_due_task_instance_at().await.unwrap(), Some(lease_end));
    let waiting = TaskInstance { due_at: Some(at(300)), ..in_state(&run, "w", State::Deferred) };
    tx.insert_task_instances(&[waiting]).await.unwrap();
    assert_eq!(tx.next_due_task_instance_at().await.unwrap(), Some(at(300)));
    let asking = TaskInstance { due_at: Some(at(200)), ..in_state(&run, "a", State::AwaitingInput) };
    tx.insert_task_instances(&[asking]).await.unwrap();
    assert_eq!(tx.next_due_task_instance_at().await.unwrap(), Some(at(200)));
    let sent = TaskInstance { resend_at: Some(at(100)), ..in_state(&run, "s", State::Queued) };
    tx.insert_task_instances(&[sent]).await.unwrap();
    assert_eq!(tx.next_due_task_instance_at().await.unwrap(), Some(at(100)));
}

async fn queued_task_instances_in_the_order_of_their_claims(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = |index, weight, queued_at| TaskInstance {
        map_index: MapIndex(index),
        priority_weight: weight,
        queued_at: Some(at(queued_at)),
        ..queued(&run, "t")
    };
    let rows = [
        row(0, 1, 10),
        row(1, 5, 30),
        row(2, 5, 20),
        TaskInstance { queue: "other".into(), ..row(3, 9, 1) },
        TaskInstance { state: State::Running, ..row(4, 9, 1) },
    ];
    put_task_instances(backend, &rows).await;
    let mut tx = backend.read().await;
    let found = tx.queued_task_instances(&"default".into(), 10).await.unwrap();
    let expected: Vec<_> = [2, 1, 0].iter().map(|n: &usize| (rows[*n].id, rows[*n].epoch)).collect();
    assert_eq!(found, expected);
    assert_eq!(tx.queued_task_instances(&"default".into(), 1).await.unwrap(), expected[..1]);
    assert_eq!(tx.queued_task_instances(&"none".into(), 1).await.unwrap(), []);
}

async fn what_somebody_has_locked_is_skipped(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let rows = [
        TaskInstance { resend_at: Some(at(1)), ..in_state(&run, "r1", State::Queued) },
        TaskInstance { resend_at: Some(at(2)), ..in_state(&run, "r2", State::Queued) },
        TaskInstance { due_at: Some(at(1)), ..in_state(&run, "w1", State::Deferred) },
        TaskInstance { due_at: Some(at(2)), ..in_state(&run, "w2", State::Deferred) },
    ];
    put_task_instances(backend, &rows).await;
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    assert_eq!(a.lock_resends(at(9), 1).await.unwrap(), [rows[0].clone()]);
    assert_eq!(b.lock_resends(at(9), 9).await.unwrap(), [rows[1].clone()]);
    assert_eq!(a.lock_due_waits(at(9), 1).await.unwrap(), [rows[2].clone()]);
    assert_eq!(b.lock_due_waits(at(9), 9).await.unwrap(), [rows[3].clone()]);
    a.commit().await.unwrap();
    assert_eq!(b.lock_resends(at(9), 9).await.unwrap(), rows[..2]);
}
