//! Visibility, locks and what happens when two transactions meet.

use std::sync::Mutex;

use gust_model::TaskInstanceState as State;
use gust_ports::metastore::{DagRunPatch, Guard, LockWait, MetastoreError, TaskInstancePatch};

use crate::{
    backend::Backend,
    behaviours,
    fixtures::{
        at, dag, guarded, id, in_state, one_run, pool, put_dag, put_runs, put_task_instances, queued, run,
        task_instance, to_state,
    },
};

behaviours! { everywhere:
    what_is_written_is_seen_by_its_own_transaction_at_once
    what_is_not_committed_is_seen_by_nobody_else
    what_is_committed_is_seen_by_later_transactions
    rollback_undoes_everything
    dropping_a_transaction_rolls_it_back
    clock_goes_on_within_a_transaction
    clock_counts_microseconds
    metastore_checks_out_and_describes_itself
}

behaviours! { where_writers_run_side_by_side:
    statement_sees_what_was_committed_when_it_began
    a_locked_run_makes_another_locker_wait
    a_locked_run_is_skipped_on_request
    a_locked_dag_makes_a_writer_wait
    a_lock_ends_with_a_rollback
    a_lock_ends_with_a_drop
    a_writer_waits_for_another_and_looks_again
    a_row_that_does_not_match_is_not_waited_for
    two_reapers_share_the_expired_leases
    two_schedulers_share_the_due_dags
    an_insert_waits_for_the_other_insert_of_the_same_run
    an_insert_succeeds_once_the_other_is_rolled_back
    an_upsert_waits_for_the_other_and_writes_over_it
    pools_are_locked_together
    a_circle_of_waits_costs_one_of_them_its_transaction
    a_lost_transaction_leaves_no_trace
}

async fn what_is_written_is_seen_by_its_own_transaction_at_once(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = task_instance(&run, "t");
    let mut tx = backend.write().await;
    tx.insert_task_instances(std::slice::from_ref(&row)).await.unwrap();
    assert_eq!(tx.task_instance(row.id).await.unwrap(), Some(row.clone()));
    tx.update_task_instances(&guarded(row.id, Guard::Any, to_state(State::Scheduled))).await.unwrap();
    assert_eq!(tx.task_instance(row.id).await.unwrap().unwrap().state, State::Scheduled);
    tx.delete_task_instances(&[row.id]).await.unwrap();
    assert_eq!(tx.task_instance(row.id).await.unwrap(), None);
}

async fn what_is_not_committed_is_seen_by_nobody_else(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let kept = task_instance(&run, "kept");
    put_task_instances(backend, std::slice::from_ref(&kept)).await;
    let mut writer = backend.write().await;
    let new = task_instance(&run, "new");
    writer.insert_task_instances(std::slice::from_ref(&new)).await.unwrap();
    writer.update_task_instances(&guarded(kept.id, Guard::Any, to_state(State::Failed))).await.unwrap();
    writer.put_pool(&pool("p", 1)).await.unwrap();
    let mut reader = backend.read().await;
    assert_eq!(reader.task_instance(new.id).await.unwrap(), None);
    assert_eq!(reader.task_instance(kept.id).await.unwrap(), Some(kept));
    assert!(reader.pools().await.unwrap().iter().all(|pool| pool.name != "p"));
}

async fn what_is_committed_is_seen_by_later_transactions(backend: &Backend) {
    let mut writer = backend.write().await;
    writer.put_pool(&pool("p", 1)).await.unwrap();
    writer.commit().await.unwrap();
    assert!(backend.read().await.pools().await.unwrap().contains(&pool("p", 1)));
    assert!(backend.write().await.pools().await.unwrap().contains(&pool("p", 1)));
}

async fn rollback_undoes_everything(backend: &Backend) {
    let (dag, run) = one_run(backend).await;
    let mut tx = backend.write().await;
    tx.set_dag_paused(&dag.dag_id, true).await.unwrap();
    tx.delete_dag_run(run.id).await.unwrap();
    tx.put_pool(&pool("p", 1)).await.unwrap();
    tx.rollback().await.unwrap();
    let mut tx = backend.read().await;
    assert_eq!(tx.dag(&dag.dag_id).await.unwrap(), Some(dag));
    assert_eq!(tx.dag_run_by_id(run.id).await.unwrap(), Some(run));
    assert!(tx.pools().await.unwrap().iter().all(|pool| pool.name != "p"));
}

async fn dropping_a_transaction_rolls_it_back(backend: &Backend) {
    let (dag, _) = one_run(backend).await;
    let mut tx = backend.write().await;
    tx.set_dag_paused(&dag.dag_id, true).await.unwrap();
    drop(tx);
    assert_eq!(backend.read().await.dag(&dag.dag_id).await.unwrap(), Some(dag.clone()));
    let mut tx = backend.write().await;
    assert!(tx.set_dag_paused(&dag.dag_id, true).await.unwrap());
    tx.commit().await.unwrap();
    assert!(backend.read().await.dag(&dag.dag_id).await.unwrap().unwrap().is_paused);
}

async fn clock_goes_on_within_a_transaction(backend: &Backend) {
    let mut tx = backend.write().await;
    let first = tx.now().await.unwrap();
    loop {
        let later = tx.now().await.unwrap();
        assert!(later >= first);
        if later > first {
            break;
        }
    }
}

async fn clock_counts_microseconds(backend: &Backend) {
    let mut tx = backend.read().await;
    let mut has_fraction_of_a_millisecond = false;
    for _ in 0..200 {
        let now = tx.now().await.unwrap();
        assert_eq!(now.timestamp_subsec_nanos() % 1000, 0);
        has_fraction_of_a_millisecond |= now.timestamp_subsec_micros() % 1000 != 0;
    }
    assert!(has_fraction_of_a_millisecond);
}

async fn metastore_checks_out_and_describes_itself(backend: &Backend) {
    backend.store.check().await.unwrap();
    assert!(!backend.store.describe().is_empty());
}

async fn statement_sees_what_was_committed_when_it_began(backend: &Backend) {
    let (dag, run) = one_run(backend).await;
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    a.set_dag_paused(&dag.dag_id, true).await.unwrap();
    assert!(!b.dag(&dag.dag_id).await.unwrap().unwrap().is_paused);
    let row = task_instance(&run, "t");
    a.insert_task_instances(std::slice::from_ref(&row)).await.unwrap();
    assert_eq!(b.task_instances_of(run.id, &[]).await.unwrap(), []);
    a.commit().await.unwrap();
    assert!(b.dag(&dag.dag_id).await.unwrap().unwrap().is_paused, "read committed, not a snapshot");
    assert_eq!(b.task_instances_of(run.id, &[]).await.unwrap(), [row]);
}

/// Runs `waiting`, which must not end before `holder` has: says in which order they did.
async fn order_of<T>(
    backend: &Backend,
    waiting: impl Future<Output = T>,
    holder: impl Future<Output = ()>,
) -> (T, Vec<&'static str>) {
    let order = Mutex::new(Vec::new());
    let (value, ()) = tokio::join!(
        async {
            let value = waiting.await;
            order.lock().unwrap().push("waited");
            value
        },
        async {
            // Round trips of somebody else give the waiting one time to begin, and to end wrongly.
            for _ in 0..20 {
                backend.read().await.now().await.unwrap();
            }
            order.lock().unwrap().push("released");
            holder.await;
        }
    );
    (value, order.into_inner().unwrap())
}

async fn a_locked_run_makes_another_locker_wait(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    assert!(a.lock_dag_run(run.id, LockWait::Wait).await.unwrap().is_some());
    let patch = DagRunPatch { note: Some(Some("by a".to_owned())), ..DagRunPatch::default() };
    assert!(a.update_dag_run(run.id, &patch).await.unwrap());
    let (locked, order) = order_of(backend, b.lock_dag_run(run.id, LockWait::Wait), async {
        a.commit().await.unwrap();
    })
    .await;
    assert_eq!(order, ["released", "waited"]);
    assert_eq!(locked.unwrap().unwrap().note.as_deref(), Some("by a"), "the newest version");
}

async fn a_locked_run_is_skipped_on_request(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    assert!(a.lock_dag_run(run.id, LockWait::SkipLocked).await.unwrap().is_some());
    assert!(a.lock_dag_run(run.id, LockWait::SkipLocked).await.unwrap().is_some(), "its own lock");
    assert_eq!(b.lock_dag_run(run.id, LockWait::SkipLocked).await.unwrap(), None);
    a.commit().await.unwrap();
    assert!(b.lock_dag_run(run.id, LockWait::SkipLocked).await.unwrap().is_some());
}

async fn a_locked_dag_makes_a_writer_wait(backend: &Backend) {
    let (dag, _) = one_run(backend).await;
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    a.lock_dag(&dag.dag_id).await.unwrap().unwrap();
    let (written, order) = order_of(backend, b.set_dag_paused(&dag.dag_id, true), async {
        a.commit().await.unwrap();
    })
    .await;
    assert_eq!(order, ["released", "waited"]);
    assert!(written.unwrap());
}

async fn a_lock_ends_with_a_rollback(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    a.lock_dag_run(run.id, LockWait::Wait).await.unwrap();
    let note = DagRunPatch { note: Some(Some("undone".to_owned())), ..DagRunPatch::default() };
    a.update_dag_run(run.id, &note).await.unwrap();
    let (locked, order) = order_of(backend, b.lock_dag_run(run.id, LockWait::Wait), async {
        a.rollback().await.unwrap();
    })
    .await;
    assert_eq!(order, ["released", "waited"]);
    assert_eq!(locked.unwrap(), Some(run));
}

async fn a_lock_ends_with_a_drop(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    a.lock_dag_run(run.id, LockWait::Wait).await.unwrap();
    let (locked, order) = order_of(backend, b.lock_dag_run(run.id, LockWait::Wait), async { drop(a) }).await;
    assert_eq!(order, ["released", "waited"]);
    assert_eq!(locked.unwrap(), Some(run));
}

async fn a_writer_waits_for_another_and_looks_again(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = in_state(&run, "t", State::Scheduled);
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    let to = |state| guarded(row.id, Guard::State(State::Scheduled), to_state(state));
    assert_eq!(a.update_task_instances(&to(State::Queued)).await.unwrap(), [row.id]);
    let writes = to(State::Skipped);
    let (written, order) = order_of(backend, b.update_task_instances(&writes), async {
        a.commit().await.unwrap();
    })
    .await;
    assert_eq!(order, ["released", "waited"]);
    assert_eq!(written.unwrap(), [], "the guard holds for the newest version no more");
    assert_eq!(b.task_instance(row.id).await.unwrap().unwrap().state, State::Queued);
}

async fn a_row_that_does_not_match_is_not_waited_for(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = in_state(&run, "t", State::Scheduled);
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    a.update_task_instances(&guarded(row.id, Guard::Any, to_state(State::Queued))).await.unwrap();
    let writes = guarded(row.id, Guard::State(State::Queued), to_state(State::Running));
    assert_eq!(b.update_task_instances(&writes).await.unwrap(), [], "what is committed is scheduled");
    a.commit().await.unwrap();
    assert_eq!(b.update_task_instances(&writes).await.unwrap(), [row.id]);
}

async fn two_reapers_share_the_expired_leases(backend: &Backend) {
    use std::time::Duration;

    let (_, run) = one_run(backend).await;
    let rows: Vec<_> = ["a", "b", "c"].iter().map(|task| queued(&run, task)).collect();
    put_task_instances(backend, &rows).await;
    let mut tx = backend.write().await;
    for row in &rows {
        let attempt = gust_model::AttemptId(id());
        tx.claim_task_instance(row.id, row.epoch, attempt, Duration::ZERO, "h", 1).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    let of_a = a.lock_expired_leases(Duration::ZERO, 2).await.unwrap();
    let of_b = b.lock_expired_leases(Duration::ZERO, 2).await.unwrap();
    assert_eq!((of_a.len(), of_b.len()), (2, 1));
    assert!(of_b.iter().all(|row| !of_a.contains(row)));
    drop(a);
    let mut c = backend.write().await;
    // The drop may still be on its way to the database.
    while c.lock_expired_leases(Duration::ZERO, 3).await.unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
}

async fn two_schedulers_share_the_due_dags(backend: &Backend) {
    for name in ["x", "y"] {
        put_dag(backend, &dag(name)).await;
    }
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    let of_a = a.lock_due_dags(at(2000), 1).await.unwrap();
    let of_b = b.lock_due_dags(at(2000), 10).await.unwrap();
    assert_eq!(of_a.len(), 1);
    assert_eq!(of_b.len(), 1);
    assert_ne!(of_a[0].dag_id, of_b[0].dag_id);
}

async fn an_insert_waits_for_the_other_insert_of_the_same_run(backend: &Backend) {
    let dag = dag("d");
    put_dag(backend, &dag).await;
    let (first, second) = (run(&dag, 1), run(&dag, 1));
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    assert!(a.insert_dag_run(&first).await.unwrap());
    let (inserted, order) = order_of(backend, b.insert_dag_run(&second), async {
        a.commit().await.unwrap();
    })
    .await;
    assert_eq!(order, ["released", "waited"]);
    assert!(!inserted.unwrap());
    assert_eq!(b.dag_run(&dag.dag_id, &first.run_id).await.unwrap(), Some(first));
}

async fn an_insert_succeeds_once_the_other_is_rolled_back(backend: &Backend) {
    let dag = dag("d");
    put_dag(backend, &dag).await;
    let (first, second) = (run(&dag, 1), run(&dag, 1));
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    assert!(a.insert_dag_run(&first).await.unwrap());
    let (inserted, order) = order_of(backend, b.insert_dag_run(&second), async {
        a.rollback().await.unwrap();
    })
    .await;
    assert_eq!(order, ["released", "waited"]);
    assert!(inserted.unwrap());
    b.commit().await.unwrap();
    let stored = backend.read().await.dag_run(&dag.dag_id, &second.run_id).await.unwrap();
    assert_eq!(stored, Some(second));
}

async fn an_upsert_waits_for_the_other_and_writes_over_it(backend: &Backend) {
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    a.put_pool(&pool("p", 1)).await.unwrap();
    let new = pool("p", 2);
    let (written, order) = order_of(backend, b.put_pool(&new), async { a.commit().await.unwrap() }).await;
    assert_eq!(order, ["released", "waited"]);
    written.unwrap();
    b.commit().await.unwrap();
    assert!(backend.read().await.pools().await.unwrap().contains(&pool("p", 2)));
}

async fn pools_are_locked_together(backend: &Backend) {
    let mut tx = backend.write().await;
    tx.put_pool(&pool("p", 1)).await.unwrap();
    tx.commit().await.unwrap();
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    assert!(a.lock_pools().await.unwrap().contains(&pool("p", 1)));
    a.put_pool(&pool("p", 5)).await.unwrap();
    let (pools, order) = order_of(backend, b.lock_pools(), async { a.commit().await.unwrap() }).await;
    assert_eq!(order, ["released", "waited"]);
    assert!(pools.unwrap().contains(&pool("p", 5)));
}

async fn a_circle_of_waits_costs_one_of_them_its_transaction(backend: &Backend) {
    let dag = dag("d");
    put_dag(backend, &dag).await;
    let (one, two) = (run(&dag, 1), run(&dag, 2));
    put_runs(backend, &[&one, &two]).await;
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    a.lock_dag_run(one.id, LockWait::Wait).await.unwrap();
    b.lock_dag_run(two.id, LockWait::Wait).await.unwrap();
    let (of_a, of_b) = tokio::join!(
        async {
            let locked = a.lock_dag_run(two.id, LockWait::Wait).await;
            drop(a);
            locked
        },
        async {
            let locked = b.lock_dag_run(one.id, LockWait::Wait).await;
            drop(b);
            locked
        }
    );
    let outcomes = [of_a, of_b];
    let lost = outcomes.iter().filter(|outcome| matches!(outcome, Err(MetastoreError::Conflict(_)))).count();
    let won = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Some(_)))).count();
    assert_eq!((lost, won), (1, 1), "{outcomes:?}");
}

async fn a_lost_transaction_leaves_no_trace(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = task_instance(&run, "t");
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let mut tx = backend.write().await;
    let note = TaskInstancePatch { note: Some(Some("x".to_owned())), ..TaskInstancePatch::default() };
    tx.update_task_instances(&guarded(row.id, Guard::Any, note)).await.unwrap();
    let again = gust_model::record::TaskInstance { id: gust_model::TaskInstanceId(id()), ..row.clone() };
    let refused = tx.insert_task_instances(&[again]).await;
    assert!(matches!(refused, Err(MetastoreError::Exists(_))), "{refused:?}");
    drop(tx);
    assert_eq!(backend.read().await.task_instance(row.id).await.unwrap(), Some(row));
}
