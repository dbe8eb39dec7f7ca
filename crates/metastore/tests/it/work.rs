//! Triggers, callbacks, questions to people, and which processes live.

use std::time::Duration;

use gust_model::{
    AttemptId, CallbackId, Epoch, TaskInstanceId, TriggerId,
    record::{Callback, CallbackState, Component, ComponentKind, Lease, TaskInstance, Trigger},
};
use gust_ports::metastore::Hitl;
use serde_json::{Value, json};

use crate::{
    backend::Backend,
    behaviours,
    fixtures::{at, id, one_run, put_task_instances, task_instance},
};

behaviours! { everywhere:
    trigger_is_stored_whole_and_removed
    triggers_that_nobody_holds_are_claimed_in_their_next_epoch
    triggers_are_claimed_up_to_a_limit
    renewal_returns_the_triggers_that_still_are_the_attempts
    callback_is_stored_whole
    callbacks_to_run_the_oldest_first
    callback_is_claimed_once_in_each_epoch
    callback_of_a_dead_worker_is_claimed_again
    callback_is_ended_by_its_attempt_only
    question_is_written_and_answered
    components_by_kind_and_newest_first
    components_are_forgotten
}

behaviours! { where_writers_run_side_by_side:
    two_triggerers_share_the_triggers
}

const TTL: Duration = Duration::from_hours(1);

async fn waiting(backend: &Backend) -> TaskInstance {
    let (_, run) = one_run(backend).await;
    let row = task_instance(&run, "t");
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    row
}

fn trigger(row: &TaskInstance, seconds: i64) -> Trigger {
    Trigger {
        id: TriggerId(id()),
        task_instance_id: row.id,
        classpath: "airflow.providers.standard.triggers.file.FileTrigger".to_owned(),
        kwargs: json!({"filepath": "ü"}),
        created_at: at(seconds),
        epoch: Epoch(0),
        lease: None,
    }
}

fn callback(seconds: i64) -> Callback {
    Callback {
        id: CallbackId(id()),
        state: CallbackState::Queued,
        bundle_name: "dags".into(),
        bundle_version: Some("v".into()),
        relative_fileloc: "f.py".to_owned(),
        dag_id: "d".into(),
        run_id: "r".into(),
        task_instance_id: None,
        request: json!({"type": "DagCallbackRequest", "msg": "ü"}),
        created_at: at(seconds),
        epoch: Epoch(1),
        lease: None,
        error: None,
    }
}

async fn insert_triggers(backend: &Backend, triggers: &[&Trigger]) {
    let mut tx = backend.write().await;
    for trigger in triggers {
        tx.insert_trigger(trigger).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn trigger_is_stored_whole_and_removed(backend: &Backend) {
    let row = waiting(backend).await;
    let bare = Trigger { kwargs: Value::Null, ..trigger(&row, 1) };
    let held = Trigger {
        epoch: Epoch(4),
        lease: Some(Lease { attempt_id: AttemptId(id()), expires_at: at(9) }),
        ..trigger(&row, 2)
    };
    insert_triggers(backend, &[&bare, &held]).await;
    let mut tx = backend.write().await;
    for trigger in [bare, held] {
        assert_eq!(tx.trigger(trigger.id).await.unwrap(), Some(trigger.clone()));
        assert!(tx.delete_trigger(trigger.id).await.unwrap());
        assert!(!tx.delete_trigger(trigger.id).await.unwrap());
        assert_eq!(tx.trigger(trigger.id).await.unwrap(), None);
    }
}

async fn triggers_that_nobody_holds_are_claimed_in_their_next_epoch(backend: &Backend) {
    let row = waiting(backend).await;
    let (new, held) = (trigger(&row, 1), trigger(&row, 2));
    insert_triggers(backend, &[&new]).await;
    let (a, b) = (AttemptId(id()), AttemptId(id()));
    let mut tx = backend.write().await;
    let claimed = tx.claim_triggers(a, Duration::ZERO, 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].epoch, Epoch(1));
    assert_eq!(claimed[0].lease.unwrap().attempt_id, a);
    assert_eq!(tx.trigger(new.id).await.unwrap().as_ref(), Some(&claimed[0]));
    tx.insert_trigger(&held).await.unwrap();
    tx.commit().await.unwrap();

    let mut tx = backend.write().await;
    let mut claimed = tx.claim_triggers(b, TTL, 10).await.unwrap();
    claimed.sort_by_key(|trigger| trigger.id);
    assert_eq!(
        claimed.iter().map(|trigger| (trigger.id, trigger.epoch)).collect::<Vec<_>>(),
        [(new.id, Epoch(2)), (held.id, Epoch(1))],
        "the lapsed one as well"
    );
    let now = tx.now().await.unwrap();
    assert!(claimed.iter().all(|trigger| trigger.lease.unwrap().expires_at > now));
    assert_eq!(tx.claim_triggers(a, TTL, 10).await.unwrap(), []);
}

async fn triggers_are_claimed_up_to_a_limit(backend: &Backend) {
    let row = waiting(backend).await;
    let triggers = [trigger(&row, 1), trigger(&row, 2), trigger(&row, 3)];
    insert_triggers(backend, &triggers.iter().collect::<Vec<_>>()).await;
    let mut tx = backend.write().await;
    let attempt = AttemptId(id());
    assert_eq!(tx.claim_triggers(attempt, TTL, 2).await.unwrap().len(), 2);
    assert_eq!(tx.claim_triggers(attempt, TTL, 2).await.unwrap().len(), 1);
    assert_eq!(tx.claim_triggers(attempt, TTL, 2).await.unwrap().len(), 0);
}

async fn renewal_returns_the_triggers_that_still_are_the_attempts(backend: &Backend) {
    let row = waiting(backend).await;
    let triggers = [trigger(&row, 1), trigger(&row, 2), trigger(&row, 3)];
    insert_triggers(backend, &triggers.iter().collect::<Vec<_>>()).await;
    let (a, b) = (AttemptId(id()), AttemptId(id()));
    let mut tx = backend.write().await;
    assert_eq!(tx.claim_triggers(a, Duration::ZERO, 10).await.unwrap().len(), 3);
    let taken = tx.claim_triggers(b, TTL, 1).await.unwrap().remove(0).id;
    let gone = triggers.iter().map(|trigger| trigger.id).find(|id| *id != taken).unwrap();
    tx.delete_trigger(gone).await.unwrap();
    let renewed = tx.renew_triggers(a, TTL).await.unwrap();
    let expected: Vec<TriggerId> =
        triggers.iter().map(|trigger| trigger.id).filter(|id| *id != taken && *id != gone).collect();
    assert_eq!(renewed, expected);
    assert_eq!(tx.claim_triggers(b, TTL, 10).await.unwrap(), [], "it is leased again");
    assert_eq!(tx.renew_triggers(AttemptId(id()), TTL).await.unwrap(), []);
}

async fn two_triggerers_share_the_triggers(backend: &Backend) {
    let row = waiting(backend).await;
    let triggers = [trigger(&row, 1), trigger(&row, 2)];
    insert_triggers(backend, &triggers.iter().collect::<Vec<_>>()).await;
    let mut a = backend.write().await;
    let mut b = backend.write().await;
    let of_a = a.claim_triggers(AttemptId(id()), TTL, 1).await.unwrap();
    let of_b = b.claim_triggers(AttemptId(id()), TTL, 10).await.unwrap();
    assert_eq!((of_a.len(), of_b.len()), (1, 1));
    assert_ne!(of_a[0].id, of_b[0].id);
}

async fn insert_callbacks(backend: &Backend, callbacks: &[&Callback]) {
    let mut tx = backend.write().await;
    for callback in callbacks {
        tx.insert_callback(callback).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn callback_is_stored_whole(backend: &Backend) {
    let row = waiting(backend).await;
    let full = Callback { task_instance_id: Some(row.id), ..callback(1) };
    let bare = Callback { bundle_version: None, request: json!({}), epoch: Epoch(0), ..callback(2) };
    insert_callbacks(backend, &[&full, &bare]).await;
    let mut tx = backend.read().await;
    assert_eq!(tx.callback(full.id).await.unwrap(), Some(full));
    assert_eq!(tx.callback(bare.id).await.unwrap(), Some(bare));
    assert_eq!(tx.callback(CallbackId(id())).await.unwrap(), None);
}

async fn callbacks_to_run_the_oldest_first(backend: &Backend) {
    let callbacks = [callback(3), callback(1), callback(2), callback(0)];
    insert_callbacks(backend, &callbacks.iter().collect::<Vec<_>>()).await;
    let mut tx = backend.write().await;
    let attempt = AttemptId(id());
    tx.claim_callback(callbacks[2].id, Epoch(1), attempt, Duration::ZERO).await.unwrap().unwrap();
    tx.claim_callback(callbacks[3].id, Epoch(1), attempt, TTL).await.unwrap().unwrap();
    let waiting = tx.callbacks_to_run(10).await.unwrap();
    let expected = [callbacks[1].id, callbacks[2].id, callbacks[0].id];
    assert_eq!(waiting.iter().map(|callback| callback.id).collect::<Vec<_>>(), expected);
    assert_eq!(tx.callbacks_to_run(1).await.unwrap().len(), 1);
}

async fn callback_is_claimed_once_in_each_epoch(backend: &Backend) {
    let queued = callback(1);
    insert_callbacks(backend, &[&queued]).await;
    let mut tx = backend.write().await;
    let attempt = AttemptId(id());
    for epoch in [Epoch(0), Epoch(2)] {
        assert_eq!(tx.claim_callback(queued.id, epoch, attempt, TTL).await.unwrap(), None);
    }
    let claimed = tx.claim_callback(queued.id, Epoch(1), attempt, TTL).await.unwrap().unwrap();
    let expected = Callback {
        state: CallbackState::Running,
        epoch: Epoch(2),
        lease: Some(Lease { attempt_id: attempt, ..claimed.lease.unwrap() }),
        ..queued.clone()
    };
    assert_eq!(claimed, expected);
    assert_eq!(tx.callback(queued.id).await.unwrap(), Some(claimed));
    for epoch in [Epoch(1), Epoch(2)] {
        assert_eq!(tx.claim_callback(queued.id, epoch, AttemptId(id()), TTL).await.unwrap(), None);
    }
    assert_eq!(tx.claim_callback(CallbackId(id()), Epoch(1), attempt, TTL).await.unwrap(), None);
}

async fn callback_of_a_dead_worker_is_claimed_again(backend: &Backend) {
    let queued = callback(1);
    insert_callbacks(backend, &[&queued]).await;
    let mut tx = backend.write().await;
    let (dead, alive) = (AttemptId(id()), AttemptId(id()));
    tx.claim_callback(queued.id, Epoch(1), dead, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(tx.claim_callback(queued.id, Epoch(1), alive, TTL).await.unwrap(), None);
    let again = tx.claim_callback(queued.id, Epoch(2), alive, TTL).await.unwrap().unwrap();
    assert_eq!((again.epoch, again.lease.unwrap().attempt_id), (Epoch(3), alive));
    assert!(!tx.finish_callback(queued.id, dead, None).await.unwrap());
    assert!(tx.finish_callback(queued.id, alive, None).await.unwrap());
}

async fn callback_is_ended_by_its_attempt_only(backend: &Backend) {
    let (good, bad) = (callback(1), callback(2));
    insert_callbacks(backend, &[&good, &bad]).await;
    let mut tx = backend.write().await;
    let attempt = AttemptId(id());
    assert!(!tx.finish_callback(good.id, attempt, None).await.unwrap(), "not claimed");
    for callback in [&good, &bad] {
        tx.claim_callback(callback.id, Epoch(1), attempt, TTL).await.unwrap().unwrap();
    }
    assert!(!tx.finish_callback(good.id, AttemptId(id()), None).await.unwrap());
    assert!(tx.finish_callback(good.id, attempt, None).await.unwrap());
    assert!(!tx.finish_callback(good.id, attempt, Some("late")).await.unwrap(), "it is over");
    assert!(tx.finish_callback(bad.id, attempt, Some("boom ü")).await.unwrap());
    let good = tx.callback(good.id).await.unwrap().unwrap();
    let bad = tx.callback(bad.id).await.unwrap().unwrap();
    assert_eq!((good.state, good.error.as_deref()), (CallbackState::Success, None));
    assert_eq!((bad.state, bad.error.as_deref()), (CallbackState::Failed, Some("boom ü")));
    assert_eq!(tx.callbacks_to_run(10).await.unwrap(), []);
}

async fn question_is_written_and_answered(backend: &Backend) {
    let row = waiting(backend).await;
    let asked = Hitl {
        task_instance_id: row.id,
        detail: json!({"subject": "Weiter?", "options": ["ja", "nein"]}),
        response: None,
        created_at: at(1),
    };
    let answered = Hitl { response: Some(json!({"chosen_options": ["ja"]})), ..asked.clone() };
    let mut tx = backend.write().await;
    assert_eq!(tx.hitl(row.id).await.unwrap(), None);
    for hitl in [asked, answered] {
        tx.put_hitl(&hitl).await.unwrap();
        assert_eq!(tx.hitl(row.id).await.unwrap(), Some(hitl));
    }
    assert_eq!(tx.hitl(TaskInstanceId(id())).await.unwrap(), None);
}

fn component(kind: ComponentKind, name: &str, heartbeat: i64) -> Component {
    Component { kind, name: name.to_owned(), heartbeat_at: at(heartbeat), started_at: at(0) }
}

async fn components_by_kind_and_newest_first(backend: &Backend) {
    use ComponentKind::{DagProcessor, Scheduler, Triggerer, Worker};
    let mut tx = backend.write().await;
    for component in [
        component(Worker, "old", 10),
        component(Worker, "new", 20),
        component(Scheduler, "s", 5),
        component(DagProcessor, "s", 6),
        component(Triggerer, "t", 7),
        component(Worker, "old", 30),
    ] {
        tx.put_component(&component).await.unwrap();
    }
    let components = tx.components().await.unwrap();
    assert_eq!(components.len(), 5);
    let workers: Vec<Component> = components.into_iter().filter(|c| c.kind == Worker).collect();
    assert_eq!(workers, [component(Worker, "old", 30), component(Worker, "new", 20)]);
}

async fn components_are_forgotten(backend: &Backend) {
    let mut tx = backend.write().await;
    for (name, heartbeat) in [("a", 1), ("b", 2), ("c", 3)] {
        tx.put_component(&component(ComponentKind::Worker, name, heartbeat)).await.unwrap();
    }
    tx.forget_components(at(2)).await.unwrap();
    let names: Vec<String> = tx.components().await.unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["c", "b"]);
}
