//! Claims, leases and fences: who may write a try (DESIGN §4).

use std::time::Duration;

use gust_model::{
    AttemptId, Epoch, TaskInstanceId, TaskInstanceState as State,
    record::{Lease, TaskInstance},
};
use gust_ports::metastore::{Guard, LeasePatch, TaskInstancePatch};

use crate::{
    backend::Backend,
    behaviours,
    fixtures::{at, guarded, id, in_state, one_run, put_task_instances, queued, to_state},
};

behaviours! { everywhere:
    claim_makes_a_queued_try_running_under_a_lease
    claim_returns_the_row_as_it_is_stored
    claim_of_an_old_epoch_finds_nothing
    claim_of_a_later_epoch_finds_nothing
    claim_in_any_other_state_finds_nothing
    claim_of_an_unknown_row_finds_nothing
    claim_after_a_deferral_keeps_the_start
    of_two_claims_one_after_the_other_the_first_wins
    lease_ends_by_the_databases_clock
    renewal_moves_the_lease_and_nothing_else
    renewal_by_another_attempt_or_epoch_is_refused
    renewal_after_the_try_was_taken_is_refused
    renewal_of_an_expired_lease_that_nobody_took_succeeds
    renewal_tells_whether_the_log_is_followed
    fence_lets_only_the_claimed_attempt_write
    fence_is_closed_once_the_lease_has_ended
    guard_by_change_seq_sees_every_write
    guard_by_state_and_by_epoch
    guard_by_an_expired_lease
    guard_any_always_holds
    guarded_writes_of_one_batch_see_each_other_in_order
    expired_leases_are_those_past_their_grace
}

behaviours! { where_writers_run_side_by_side:
    of_two_claims_at_once_one_wins
    claim_waits_for_an_admission_that_is_not_committed
}

const TTL: Duration = Duration::from_hours(1);

fn attempt() -> AttemptId {
    AttemptId(id())
}

async fn one_queued(backend: &Backend) -> TaskInstance {
    let (_, run) = one_run(backend).await;
    let row = queued(&run, "t");
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    row
}

async fn claim(
    backend: &Backend,
    id: TaskInstanceId,
    epoch: Epoch,
    attempt: AttemptId,
    ttl: Duration,
) -> Option<TaskInstance> {
    let mut tx = backend.write().await;
    let claimed = tx.claim_task_instance(id, epoch, attempt, ttl, "host-1", 42).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

async fn update(backend: &Backend, id: TaskInstanceId, guard: Guard, patch: TaskInstancePatch) -> bool {
    let mut tx = backend.write().await;
    let written = tx.update_task_instances(&guarded(id, guard, patch)).await.unwrap();
    tx.commit().await.unwrap();
    assert!(written.is_empty() || written == [id]);
    !written.is_empty()
}

async fn load(backend: &Backend, id: TaskInstanceId) -> TaskInstance {
    backend.read().await.task_instance(id).await.unwrap().unwrap()
}

async fn claim_makes_a_queued_try_running_under_a_lease(backend: &Backend) {
    let row = one_queued(backend).await;
    let attempt = attempt();
    let before = backend.read().await.now().await.unwrap();
    let claimed = claim(backend, row.id, row.epoch, attempt, TTL).await.unwrap();
    let after = backend.read().await.now().await.unwrap();
    let lease = claimed.lease.unwrap();
    let start = claimed.start_date.unwrap();
    assert_eq!(lease.attempt_id, attempt);
    assert!(lease.expires_at >= before + TTL && lease.expires_at <= after + TTL);
    assert!(start >= before && start <= after);
    assert!(claimed.updated_at >= before && claimed.updated_at <= after);
    assert!(claimed.change_seq > row.change_seq);
    let expected = TaskInstance {
        state: State::Running,
        lease: claimed.lease,
        hostname: Some("host-1".to_owned()),
        pid: Some(42),
        start_date: claimed.start_date,
        change_seq: claimed.change_seq,
        updated_at: claimed.updated_at,
        ..row
    };
    assert_eq!(claimed, expected);
}

async fn claim_returns_the_row_as_it_is_stored(backend: &Backend) {
    let row = one_queued(backend).await;
    let claimed = claim(backend, row.id, row.epoch, attempt(), TTL).await.unwrap();
    assert_eq!(claimed, load(backend, row.id).await);
}

async fn claim_of_an_old_epoch_finds_nothing(backend: &Backend) {
    let row = one_queued(backend).await;
    assert_eq!(claim(backend, row.id, Epoch(row.epoch.0 - 1), attempt(), TTL).await, None);
    assert_eq!(load(backend, row.id).await, row);
}

async fn claim_of_a_later_epoch_finds_nothing(backend: &Backend) {
    let row = one_queued(backend).await;
    assert_eq!(claim(backend, row.id, row.epoch.next(), attempt(), TTL).await, None);
    assert_eq!(load(backend, row.id).await, row);
}

async fn claim_in_any_other_state_finds_nothing(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    for state in State::ALL.iter().copied().filter(|state| *state != State::Queued) {
        let row = TaskInstance { epoch: Epoch(1), ..in_state(&run, state.as_str(), state) };
        put_task_instances(backend, std::slice::from_ref(&row)).await;
        assert_eq!(claim(backend, row.id, row.epoch, attempt(), TTL).await, None, "{state}");
        assert_eq!(load(backend, row.id).await, row);
    }
}

async fn claim_of_an_unknown_row_finds_nothing(backend: &Backend) {
    assert_eq!(claim(backend, TaskInstanceId(id()), Epoch(1), attempt(), TTL).await, None);
}

async fn claim_after_a_deferral_keeps_the_start(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = TaskInstance {
        start_date: Some(at(7)),
        next_method: Some("execute_complete".to_owned()),
        ..queued(&run, "t")
    };
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let claimed = claim(backend, row.id, row.epoch, attempt(), TTL).await.unwrap();
    assert_eq!(claimed.start_date, Some(at(7)));
    assert_eq!(claimed.next_method.as_deref(), Some("execute_complete"));

    let again = TaskInstance { start_date: Some(at(7)), ..queued(&run, "rescheduled") };
    put_task_instances(backend, std::slice::from_ref(&again)).await;
    let claimed = claim(backend, again.id, again.epoch, attempt(), TTL).await.unwrap();
    assert!(claimed.start_date > Some(at(7)), "without a method to resume with, the start is new");
}

async fn of_two_claims_one_after_the_other_the_first_wins(backend: &Backend) {
    let row = one_queued(backend).await;
    let (first, second) = (attempt(), attempt());
    assert!(claim(backend, row.id, row.epoch, first, TTL).await.is_some());
    assert_eq!(claim(backend, row.id, row.epoch, second, TTL).await, None);
    assert_eq!(claim(backend, row.id, row.epoch, first, TTL).await, None, "a message that came twice");
    assert_eq!(load(backend, row.id).await.lease.unwrap().attempt_id, first);
}

async fn of_two_claims_at_once_one_wins(backend: &Backend) {
    for _ in 0..20 {
        let (_, run) = {
            let dag = crate::fixtures::dag(&format!("d{}", id()));
            crate::fixtures::put_dag(backend, &dag).await;
            let run = crate::fixtures::run(&dag, 1);
            crate::fixtures::put_runs(backend, &[&run]).await;
            (dag, run)
        };
        let row = queued(&run, "t");
        put_task_instances(backend, std::slice::from_ref(&row)).await;
        let attempts: Vec<AttemptId> = (0..5).map(|_| attempt()).collect();
        let claims = attempts.iter().map(|attempt| claim(backend, row.id, row.epoch, *attempt, TTL));
        let won: Vec<TaskInstance> = futures::future::join_all(claims).await.into_iter().flatten().collect();
        assert_eq!(won.len(), 1);
        assert_eq!(load(backend, row.id).await, won[0]);
    }
}

async fn claim_waits_for_an_admission_that_is_not_committed(backend: &Backend) {
    let row = one_queued(backend).await;
    // Somebody takes the try back into the next epoch and has not committed when the claim comes.
    let mut taker = backend.write().await;
    let patch = TaskInstancePatch { next_epoch: true, ..TaskInstancePatch::default() };
    taker.update_task_instances(&guarded(row.id, Guard::Any, patch)).await.unwrap();
    let (claimed, ()) = tokio::join!(claim(backend, row.id, row.epoch, attempt(), TTL), async {
        for _ in 0..5 {
            backend.read().await.now().await.unwrap();
        }
        taker.commit().await.unwrap();
    });
    assert_eq!(claimed, None, "the claim looks again at what it waited for");
    assert_eq!(load(backend, row.id).await.state, State::Queued);
}

async fn lease_ends_by_the_databases_clock(backend: &Backend) {
    let row = one_queued(backend).await;
    let mut tx = backend.write().await;
    let claimed =
        tx.claim_task_instance(row.id, row.epoch, attempt(), Duration::from_millis(1500), "h", 1).await;
    let now = tx.now().await.unwrap();
    let expires_at = claimed.unwrap().unwrap().lease.unwrap().expires_at;
    tx.commit().await.unwrap();
    assert!(expires_at <= now + Duration::from_millis(1500));
    assert!(expires_at > now - Duration::from_mins(1));
}

async fn renewal_moves_the_lease_and_nothing_else(backend: &Backend) {
    let row = one_queued(backend).await;
    let attempt = attempt();
    let claimed = claim(backend, row.id, row.epoch, attempt, Duration::from_secs(10)).await.unwrap();
    let mut tx = backend.write().await;
    let renewal = tx.renew_lease(row.id, row.epoch, attempt, TTL).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    assert!(!renewal.is_followed);
    assert!(renewal.expires_at > claimed.lease.unwrap().expires_at);
    let renewed = load(backend, row.id).await;
    let lease = Some(Lease { attempt_id: attempt, expires_at: renewal.expires_at });
    let expected =
        TaskInstance { lease, change_seq: renewed.change_seq, updated_at: renewed.updated_at, ..claimed };
    assert_eq!(renewed, expected);
}

async fn renewal_by_another_attempt_or_epoch_is_refused(backend: &Backend) {
    let row = one_queued(backend).await;
    let owner = attempt();
    let claimed = claim(backend, row.id, row.epoch, owner, TTL).await.unwrap();
    let mut tx = backend.write().await;
    assert_eq!(tx.renew_lease(row.id, row.epoch, attempt(), TTL).await.unwrap(), None);
    assert_eq!(tx.renew_lease(row.id, row.epoch.next(), owner, TTL).await.unwrap(), None);
    assert_eq!(tx.renew_lease(TaskInstanceId(id()), row.epoch, owner, TTL).await.unwrap(), None);
    tx.commit().await.unwrap();
    assert_eq!(load(backend, row.id).await, claimed);
}

async fn renewal_after_the_try_was_taken_is_refused(backend: &Backend) {
    let row = one_queued(backend).await;
    let owner = attempt();
    claim(backend, row.id, row.epoch, owner, TTL).await.unwrap();
    assert!(update(backend, row.id, Guard::Any, to_state(State::Restarting)).await);
    let mut tx = backend.write().await;
    assert_eq!(tx.renew_lease(row.id, row.epoch, owner, TTL).await.unwrap(), None);
}

async fn renewal_of_an_expired_lease_that_nobody_took_succeeds(backend: &Backend) {
    let row = one_queued(backend).await;
    let owner = attempt();
    claim(backend, row.id, row.epoch, owner, Duration::ZERO).await.unwrap();
    let mut tx = backend.write().await;
    assert_eq!(tx.lock_expired_leases(Duration::ZERO, 10).await.unwrap().len(), 1);
    assert!(tx.renew_lease(row.id, row.epoch, owner, TTL).await.unwrap().is_some());
    assert_eq!(tx.lock_expired_leases(Duration::ZERO, 10).await.unwrap(), []);
    tx.commit().await.unwrap();
}

async fn renewal_tells_whether_the_log_is_followed(backend: &Backend) {
    let row = one_queued(backend).await;
    let owner = attempt();
    claim(backend, row.id, row.epoch, owner, TTL).await.unwrap();
    for (offset_s, is_followed) in [(600, true), (-600, false)] {
        let mut tx = backend.write().await;
        let until = tx.now().await.unwrap() + chrono::TimeDelta::seconds(offset_s);
        tx.follow_log(row.id, until).await.unwrap();
        let renewal = tx.renew_lease(row.id, row.epoch, owner, TTL).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        assert_eq!(renewal.is_followed, is_followed);
    }
    let mut tx = backend.write().await;
    tx.follow_log(TaskInstanceId(id()), at(0)).await.unwrap();
}

async fn fence_lets_only_the_claimed_attempt_write(backend: &Backend) {
    let row = one_queued(backend).await;
    let owner = attempt();
    claim(backend, row.id, row.epoch, owner, TTL).await.unwrap();
    let done = || TaskInstancePatch { lease: LeasePatch::End, ..to_state(State::Success) };
    assert!(!update(backend, row.id, Guard::Fence(row.epoch, attempt()), done()).await);
    assert!(!update(backend, row.id, Guard::Fence(row.epoch.next(), owner), done()).await);
    assert!(!update(backend, row.id, Guard::Fence(Epoch(0), owner), done()).await);
    assert_eq!(load(backend, row.id).await.state, State::Running);
    assert!(update(backend, row.id, Guard::Fence(row.epoch, owner), done()).await);
    let ended = load(backend, row.id).await;
    assert_eq!((ended.state, ended.lease), (State::Success, None));
    assert!(!update(backend, row.id, Guard::Fence(row.epoch, owner), to_state(State::Failed)).await);
    assert_eq!(load(backend, row.id).await, ended);
}

async fn fence_is_closed_once_the_lease_has_ended(backend: &Backend) {
    let row = one_queued(backend).await;
    let owner = attempt();
    claim(backend, row.id, row.epoch, owner, TTL).await.unwrap();
    let end = TaskInstancePatch { lease: LeasePatch::End, ..TaskInstancePatch::default() };
    assert!(update(backend, row.id, Guard::Any, end).await);
    assert!(!update(backend, row.id, Guard::Fence(row.epoch, owner), to_state(State::Success)).await);
}

async fn guard_by_change_seq_sees_every_write(backend: &Backend) {
    let row = one_queued(backend).await;
    let note =
        |text: &str| TaskInstancePatch { note: Some(Some(text.to_owned())), ..TaskInstancePatch::default() };
    assert!(update(backend, row.id, Guard::ChangeSeq(row.change_seq), note("first")).await);
    assert!(!update(backend, row.id, Guard::ChangeSeq(row.change_seq), note("second")).await);
    let seen = load(backend, row.id).await;
    assert_eq!(seen.note.as_deref(), Some("first"));
    assert!(seen.change_seq > row.change_seq);
    assert!(update(backend, row.id, Guard::ChangeSeq(seen.change_seq), note("third")).await);
}

async fn guard_by_state_and_by_epoch(backend: &Backend) {
    let row = one_queued(backend).await;
    let nothing = TaskInstancePatch::default;
    assert!(!update(backend, row.id, Guard::State(State::Running), nothing()).await);
    assert!(update(backend, row.id, Guard::State(State::Queued), nothing()).await);
    assert!(!update(backend, row.id, Guard::Epoch(State::Queued, Epoch(0)), nothing()).await);
    assert!(!update(backend, row.id, Guard::Epoch(State::Running, row.epoch), nothing()).await);
    assert!(update(backend, row.id, Guard::Epoch(State::Queued, row.epoch), nothing()).await);
}

async fn guard_by_an_expired_lease(backend: &Backend) {
    let row = one_queued(backend).await;
    assert!(!update(backend, row.id, Guard::LeaseExpired, to_state(State::Failed)).await, "not running");
    let owner = attempt();
    claim(backend, row.id, row.epoch, owner, TTL).await.unwrap();
    assert!(!update(backend, row.id, Guard::LeaseExpired, to_state(State::Failed)).await, "still leased");
    let mut tx = backend.write().await;
    tx.renew_lease(row.id, row.epoch, owner, Duration::ZERO).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    assert!(update(backend, row.id, Guard::LeaseExpired, to_state(State::Failed)).await);
}

async fn guard_any_always_holds(backend: &Backend) {
    let row = one_queued(backend).await;
    assert!(update(backend, row.id, Guard::Any, to_state(State::Removed)).await);
    assert!(
        !update(backend, TaskInstanceId(id()), Guard::Any, to_state(State::Removed)).await,
        "no such row"
    );
}

async fn guarded_writes_of_one_batch_see_each_other_in_order(backend: &Backend) {
    let row = one_queued(backend).await;
    let mut writes = guarded(row.id, Guard::State(State::Queued), to_state(State::Scheduled));
    writes.extend(guarded(row.id, Guard::State(State::Queued), to_state(State::Failed)));
    writes.extend(guarded(row.id, Guard::State(State::Scheduled), to_state(State::Skipped)));
    let mut tx = backend.write().await;
    assert_eq!(tx.update_task_instances(&writes).await.unwrap(), [row.id, row.id]);
    tx.commit().await.unwrap();
    assert_eq!(load(backend, row.id).await.state, State::Skipped);
}

async fn expired_leases_are_those_past_their_grace(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let rows: Vec<TaskInstance> = ["a", "b", "c"].iter().map(|task| queued(&run, task)).collect();
    put_task_instances(backend, &rows).await;
    for (row, ttl) in rows.iter().zip([Duration::ZERO, Duration::ZERO, TTL]) {
        claim(backend, row.id, row.epoch, attempt(), ttl).await.unwrap();
    }
    let mut tx = backend.write().await;
    let expired = tx.lock_expired_leases(Duration::ZERO, 10).await.unwrap();
    assert_eq!(expired.iter().map(|row| row.id).collect::<Vec<_>>(), [rows[0].id, rows[1].id]);
    assert_eq!(expired[0], tx.task_instance(rows[0].id).await.unwrap().unwrap());
    assert_eq!(tx.lock_expired_leases(Duration::ZERO, 1).await.unwrap().len(), 1);
    assert_eq!(tx.lock_expired_leases(TTL, 10).await.unwrap(), []);
}
