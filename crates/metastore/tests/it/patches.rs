//! Every field of every patch sets its own column, and no other.

use gust_model::{
    DagRunState, DagVersionId, Epoch, MapIndex, TaskInstanceState as State, TriggerId,
    record::{DagRun, TaskInstance},
};
use gust_ports::metastore::{DagRunPatch, Guard, LeasePatch, TaskInstancePatch};
use serde_json::{Value, json};

use crate::{
    backend::Backend,
    behaviours,
    fixtures::{at, guarded, id, one_run, put_task_instances, queued},
};

behaviours! { everywhere:
    every_field_of_a_task_instance_patch_sets_its_column_alone
    an_empty_task_instance_patch_moves_only_the_marks_of_a_write
    every_field_of_a_run_patch_sets_its_column_alone
    a_run_patch_for_no_run_says_so
    patched_fields_can_be_emptied_again
    all_fields_at_once
}

/// Builds a list of (name, patch, what the row becomes) from fields and values.
macro_rules! cases {
    ($patch:ty, $row:ty; $($field:ident: $value:expr, $stored:expr;)+) => {
        vec![$((
            stringify!($field),
            { let mut patch = <$patch>::default(); patch.$field = Some($value); patch },
            (|row: &mut $row| row.$field = $stored) as fn(&mut $row),
        )),+]
    };
}

type TaskInstanceCase = (&'static str, TaskInstancePatch, fn(&mut TaskInstance));

fn task_instance_cases() -> Vec<TaskInstanceCase> {
    const TRIGGER: TriggerId = TriggerId(uuid::Uuid::from_u128(77));
    const VERSION: DagVersionId = DagVersionId(uuid::Uuid::from_u128(78));
    let mut cases = cases! { TaskInstancePatch, TaskInstance;
        state: State::Deferred, State::Deferred;
        accounted_state: State::Skipped, State::Skipped;
        is_dirty: true, true;
        map_index: MapIndex(0), MapIndex(0);
        try_number: 9, 9;
        max_tries: 8, 8;
        scheduled_at: Some(at(101)), Some(at(101));
        queued_at: Some(at(102)), Some(at(102));
        resend_at: Some(at(103)), Some(at(103));
        send_count: 7, 7;
        start_date: Some(at(104)), Some(at(104));
        end_date: Some(at(105)), Some(at(105));
        due_at: Some(at(106)), Some(at(106));
        pool: "other pool".into(), "other pool".into();
        pool_slots: 6, 6;
        queue: "other".into(), "other".into();
        priority_weight: -5_000_000_000, -5_000_000_000;
        rendered_map_index: Some("Zeile ①".to_owned()), Some("Zeile ①".to_owned());
        hostname: Some(String::new()), Some(String::new());
        pid: Some(i32::MAX), Some(i32::MAX);
        next_method: Some("go_on".to_owned()), Some("go_on".to_owned());
        next_kwargs: json!({"event": {"ü": null}}), json!({"event": {"ü": null}});
        trigger_id: Some(TRIGGER), Some(TRIGGER);
        retry_delay_override: Some(1.25), Some(1.25);
        retry_reason: Some("busy".to_owned()), Some("busy".to_owned());
        dag_version_id: VERSION, VERSION;
        note: Some("Notiz\n'\"\\ 🦀".to_owned()), Some("Notiz\n'\"\\ 🦀".to_owned());
    };
    cases.push((
        "next_epoch",
        TaskInstancePatch { next_epoch: true, ..TaskInstancePatch::default() },
        |row| row.epoch = Epoch(row.epoch.0 + 1),
    ));
    cases.push((
        "lease",
        TaskInstancePatch { lease: LeasePatch::End, ..TaskInstancePatch::default() },
        |row| row.lease = None,
    ));
    cases
}

async fn every_field_of_a_task_instance_patch_sets_its_column_alone(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = queued(&run, "t");
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let mut tx = backend.write().await;
    let attempt = gust_model::AttemptId(id());
    let ttl = std::time::Duration::from_secs(9);
    let mut expected =
        tx.claim_task_instance(row.id, row.epoch, attempt, ttl, "h", 1).await.unwrap().unwrap();
    for (name, patch, change) in task_instance_cases() {
        let written = tx.update_task_instances(&guarded(row.id, Guard::Any, patch)).await.unwrap();
        assert_eq!(written, [row.id], "{name}");
        let now = tx.now().await.unwrap();
        let stored = tx.task_instance(row.id).await.unwrap().unwrap();
        assert!(stored.change_seq > expected.change_seq, "{name}");
        assert!(stored.updated_at >= expected.updated_at && stored.updated_at <= now, "{name}");
        let before = expected.clone();
        change(&mut expected);
        assert_ne!(before, expected, "{name} is a change");
        expected.change_seq = stored.change_seq;
        expected.updated_at = stored.updated_at;
        assert_eq!(stored, expected, "{name}");
    }
    tx.commit().await.unwrap();
    assert_eq!(backend.read().await.task_instance(row.id).await.unwrap(), Some(expected));
}

async fn an_empty_task_instance_patch_moves_only_the_marks_of_a_write(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = queued(&run, "t");
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let mut tx = backend.write().await;
    tx.update_task_instances(&guarded(row.id, Guard::Any, TaskInstancePatch::default())).await.unwrap();
    let stored = tx.task_instance(row.id).await.unwrap().unwrap();
    assert!(stored.change_seq > row.change_seq);
    assert!(stored.updated_at > row.updated_at);
    let expected = TaskInstance { change_seq: stored.change_seq, updated_at: stored.updated_at, ..row };
    assert_eq!(stored, expected);
}

async fn every_field_of_a_run_patch_sets_its_column_alone(backend: &Backend) {
    const VERSION: DagVersionId = DagVersionId(uuid::Uuid::from_u128(79));
    let (_, run) = one_run(backend).await;
    let mut cases = cases! { DagRunPatch, DagRun;
        state: DagRunState::Failed, DagRunState::Failed;
        queued_at: at(201), at(201);
        start_date: Some(at(202)), Some(at(202));
        end_date: Some(at(203)), Some(at(203));
        dag_version_id: VERSION, VERSION;
        bundle_version: Some("b2".into()), Some("b2".into());
        clear_number: 3, 3;
        note: Some("ünïcode".to_owned()), Some("ünïcode".to_owned());
        unfinished_count: 5_000_000_000, 5_000_000_000;
        under_way_count: 4, 4;
        is_expanded: false, false;
        is_dirty: true, true;
        due_at: Some(at(204)), Some(at(204));
    };
    let decided = DagRunPatch { last_scheduling_decision: Some(at(205)), ..DagRunPatch::default() };
    cases.push(("last_scheduling_decision", decided, |run| run.last_scheduling_decision = Some(at(205))));
    let mut expected = run.clone();
    let mut tx = backend.write().await;
    for (name, patch, change) in cases {
        assert!(tx.update_dag_run(run.id, &patch).await.unwrap(), "{name}");
        let stored = tx.dag_run_by_id(run.id).await.unwrap().unwrap();
        assert!(stored.change_seq > expected.change_seq, "{name}");
        let before = expected.clone();
        change(&mut expected);
        assert_ne!(before, expected, "{name} is a change");
        expected.change_seq = stored.change_seq;
        assert_eq!(stored, expected, "{name}");
    }
    tx.commit().await.unwrap();
    assert_eq!(backend.read().await.dag_run_by_id(run.id).await.unwrap(), Some(expected));
}

async fn a_run_patch_for_no_run_says_so(backend: &Backend) {
    let mut tx = backend.write().await;
    assert!(!tx.update_dag_run(gust_model::DagRunId(id()), &DagRunPatch::default()).await.unwrap());
}

async fn patched_fields_can_be_emptied_again(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = queued(&run, "t");
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let mut tx = backend.write().await;
    for (name, patch, _) in task_instance_cases().into_iter().filter(|case| case.0 != "dag_version_id") {
        assert_eq!(
            tx.update_task_instances(&guarded(row.id, Guard::Any, patch)).await.unwrap().len(),
            1,
            "{name}"
        );
    }
    let emptied = TaskInstancePatch {
        scheduled_at: Some(None),
        queued_at: Some(None),
        resend_at: Some(None),
        start_date: Some(None),
        end_date: Some(None),
        due_at: Some(None),
        rendered_map_index: Some(None),
        hostname: Some(None),
        pid: Some(None),
        next_method: Some(None),
        next_kwargs: Some(Value::Null),
        trigger_id: Some(None),
        retry_delay_override: Some(None),
        retry_reason: Some(None),
        note: Some(None),
        ..TaskInstancePatch::default()
    };
    tx.update_task_instances(&guarded(row.id, Guard::Any, emptied)).await.unwrap();
    let stored = tx.task_instance(row.id).await.unwrap().unwrap();
    let moments = [
        stored.scheduled_at,
        stored.queued_at,
        stored.resend_at,
        stored.start_date,
        stored.end_date,
        stored.due_at,
    ];
    assert_eq!(moments, [None; 6]);
    assert_eq!((stored.rendered_map_index, stored.hostname, stored.pid), (None, None, None));
    assert_eq!((stored.next_method, stored.next_kwargs, stored.trigger_id), (None, Value::Null, None));
    assert_eq!((stored.retry_delay_override, stored.retry_reason, stored.note), (None, None, None));

    let set = DagRunPatch {
        start_date: Some(Some(at(1))),
        end_date: Some(Some(at(1))),
        bundle_version: Some(Some("b".into())),
        note: Some(Some("n".to_owned())),
        due_at: Some(Some(at(1))),
        ..DagRunPatch::default()
    };
    tx.update_dag_run(run.id, &set).await.unwrap();
    let unset = DagRunPatch {
        start_date: Some(None),
        end_date: Some(None),
        bundle_version: Some(None),
        note: Some(None),
        due_at: Some(None),
        ..DagRunPatch::default()
    };
    tx.update_dag_run(run.id, &unset).await.unwrap();
    let stored = tx.dag_run_by_id(run.id).await.unwrap().unwrap();
    assert_eq!(stored.bundle_version, None);
    assert_eq!(
        DagRun { bundle_version: run.bundle_version.clone(), change_seq: run.change_seq, ..stored },
        run
    );
}

async fn all_fields_at_once(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = queued(&run, "t");
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let patch = TaskInstancePatch {
        state: Some(State::UpForRetry),
        is_dirty: Some(true),
        next_epoch: true,
        lease: LeasePatch::End,
        end_date: Some(Some(at(9))),
        due_at: Some(Some(at(10))),
        note: Some(Some(String::new())),
        next_kwargs: Some(json!({})),
        ..TaskInstancePatch::default()
    };
    let mut tx = backend.write().await;
    tx.update_task_instances(&guarded(row.id, Guard::Any, patch)).await.unwrap();
    let stored = tx.task_instance(row.id).await.unwrap().unwrap();
    let expected = TaskInstance {
        state: State::UpForRetry,
        is_dirty: true,
        epoch: row.epoch.next(),
        end_date: Some(at(9)),
        due_at: Some(at(10)),
        note: Some(String::new()),
        next_kwargs: json!({}),
        change_seq: stored.change_seq,
        updated_at: stored.updated_at,
        ..row
    };
    assert_eq!(stored, expected);
}
