//! Task instances, their tries and reschedules.

use gust_model::{
    AttemptId, DagRunId, DagVersionId, Epoch, MapIndex, TaskId, TaskInstanceId, TaskInstanceState as State,
    TriggerId,
    record::{DagRun, Lease, TaskInstance, TaskReschedule},
};
use gust_ports::metastore::{
    Direction, Guard, MetastoreError, Page, TaskInstanceFilter, TaskInstancePatch, TaskInstanceSort,
    TaskInstanceWrite, TimeRange,
};
use serde_json::json;

use crate::{
    backend::Backend,
    behaviours,
    fixtures::{
        at, dag, guarded, id, in_state, one_run, put_dag, put_runs, put_task_instances, run, task_instance,
        to_state,
    },
};

behaviours! { everywhere:
    task_instance_is_stored_whole
    every_state_is_stored
    task_instance_is_found_by_its_place
    two_of_one_place_clash
    an_expansion_moves_a_row_to_another_place
    task_instances_by_every_filter
    task_instances_by_every_sort
    task_instances_in_pages_with_totals
    task_instances_of_a_run_or_of_some_of_its_tasks
    changed_task_instances_are_dirty_ones_and_rests_that_are_over
    deleting_task_instances_takes_what_hangs_on_them
    ten_thousand_task_instances_are_inserted_and_updated
    empty_batches_do_nothing
    tries_that_are_over_by_number
    reschedules_of_a_try_by_start
}

async fn task_instance_is_stored_whole(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let full = TaskInstance {
        map_index: MapIndex(3),
        state: State::Running,
        accounted_state: State::Queued,
        is_dirty: true,
        change_seq: 1_000_000_000_000,
        try_number: 2,
        max_tries: 5,
        epoch: Epoch(9),
        lease: Some(Lease { attempt_id: AttemptId(id()), expires_at: at(60) }),
        scheduled_at: Some(at(1)),
        queued_at: Some(at(2)),
        resend_at: Some(at(3)),
        send_count: 4,
        start_date: Some(at(5)),
        end_date: Some(at(6)),
        due_at: Some(at(7)),
        pool: "Pool ü".into(),
        pool_slots: 3,
        queue: "schlange".into(),
        priority_weight: i64::MAX,
        executor: None,
        operator: "BashOperator".to_owned(),
        operator_name: None,
        task_display_name: None,
        rendered_map_index: Some("x".to_owned()),
        hostname: Some("h".to_owned()),
        pid: Some(1),
        next_method: Some("m".to_owned()),
        next_kwargs: json!({"a": [1, 2.5, null, "é"]}),
        trigger_id: Some(TriggerId(id())),
        retry_delay_override: Some(0.1),
        retry_reason: Some(String::new()),
        note: Some("💨".to_owned()),
        ..task_instance(&run, "group.täsk")
    };
    let bare = task_instance(&run, "");
    put_task_instances(backend, &[full.clone(), bare.clone()]).await;
    let mut tx = backend.read().await;
    assert_eq!(tx.task_instance(full.id).await.unwrap(), Some(full));
    assert_eq!(tx.task_instance(bare.id).await.unwrap(), Some(bare));
    assert_eq!(tx.task_instance(TaskInstanceId(id())).await.unwrap(), None);
}

async fn every_state_is_stored(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let rows: Vec<TaskInstance> = State::ALL
        .iter()
        .map(|state| TaskInstance { accounted_state: *state, ..in_state(&run, state.as_str(), *state) })
        .collect();
    put_task_instances(backend, &rows).await;
    let mut tx = backend.read().await;
    for row in rows {
        assert_eq!(tx.task_instance(row.id).await.unwrap(), Some(row));
    }
}

async fn task_instance_is_found_by_its_place(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let plain = task_instance(&run, "t");
    let mapped = TaskInstance { map_index: MapIndex(0), ..task_instance(&run, "t") };
    put_task_instances(backend, &[plain.clone(), mapped.clone()]).await;
    let mut tx = backend.read().await;
    let task = TaskId::from("t");
    assert_eq!(tx.task_instance_at(run.id, &task, MapIndex::UNMAPPED).await.unwrap(), Some(plain));
    assert_eq!(tx.task_instance_at(run.id, &task, MapIndex(0)).await.unwrap(), Some(mapped));
    assert_eq!(tx.task_instance_at(run.id, &task, MapIndex(1)).await.unwrap(), None);
    assert_eq!(tx.task_instance_at(run.id, &"T".into(), MapIndex(0)).await.unwrap(), None);
    assert_eq!(tx.task_instance_at(DagRunId(id()), &task, MapIndex(0)).await.unwrap(), None);
}

async fn two_of_one_place_clash(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = task_instance(&run, "t");
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let mut tx = backend.write().await;
    let refused = tx.insert_task_instances(&[task_instance(&run, "u"), task_instance(&run, "t")]).await;
    assert!(matches!(refused, Err(MetastoreError::Exists(_))), "{refused:?}");
    tx.rollback().await.unwrap();
    assert_eq!(backend.read().await.task_instances_of(run.id, &[]).await.unwrap(), [row]);
}

async fn an_expansion_moves_a_row_to_another_place(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = task_instance(&run, "t");
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let mut tx = backend.write().await;
    let patch = TaskInstancePatch { map_index: Some(MapIndex(0)), ..TaskInstancePatch::default() };
    tx.update_task_instances(&guarded(row.id, Guard::Any, patch)).await.unwrap();
    let task = TaskId::from("t");
    assert_eq!(tx.task_instance_at(run.id, &task, MapIndex::UNMAPPED).await.unwrap(), None);
    assert_eq!(tx.task_instance_at(run.id, &task, MapIndex(0)).await.unwrap().unwrap().id, row.id);
    tx.insert_task_instances(&[task_instance(&run, "t")]).await.unwrap();
}

/// Task instances 1 to 4, in two runs, that differ in everything that filters and sorts look at.
async fn four_task_instances(backend: &Backend) -> (Vec<DagRun>, Vec<TaskInstance>) {
    let (record, other) = (dag("d"), dag("e"));
    put_dag(backend, &record).await;
    put_dag(backend, &other).await;
    let runs = vec![run(&record, 2), DagRun { logical_date: None, ..run(&other, 1) }];
    put_runs(backend, &runs.iter().collect::<Vec<_>>()).await;
    let first = TaskInstance {
        state: State::Success,
        start_date: Some(at(30)),
        end_date: Some(at(31)),
        queued_at: Some(at(4)),
        try_number: 2,
        updated_at: at(100),
        ..task_instance(&runs[0], "b_task")
    };
    let second = TaskInstance {
        state: State::Failed,
        start_date: Some(at(20)),
        end_date: Some(at(41)),
        queued_at: Some(at(5)),
        map_index: MapIndex(7),
        pool: "p".into(),
        queue: "q".into(),
        operator: "BashOperator".to_owned(),
        task_display_name: Some("Zebra%".to_owned()),
        try_number: 1,
        updated_at: at(200),
        ..task_instance(&runs[0], "a_task")
    };
    let third = TaskInstance {
        state: State::Running,
        start_date: Some(at(25)),
        task_display_name: None,
        try_number: 3,
        updated_at: at(300),
        ..task_instance(&runs[0], "c")
    };
    let fourth = TaskInstance { updated_at: at(400), ..task_instance(&runs[1], "b_task") };
    let rows = vec![first, second, third, fourth];
    put_task_instances(backend, &rows).await;
    (runs, rows)
}

fn numbers(all: &[TaskInstance], found: &[TaskInstance]) -> Vec<usize> {
    found.iter().map(|row| 1 + all.iter().position(|other| other == row).unwrap()).collect()
}

async fn task_instances_by_every_filter(backend: &Backend) {
    let (runs, all) = four_task_instances(backend).await;
    let any = TaskInstanceFilter::default;
    let from = |moment| TimeRange { gte: Some(moment), ..TimeRange::default() };
    let before = |moment| TimeRange { lt: Some(moment), ..TimeRange::default() };
    let cases: Vec<(TaskInstanceFilter, &[usize])> = vec![
        (any(), &[1, 2, 3, 4]),
        (TaskInstanceFilter { dag_run_ids: vec![runs[1].id], ..any() }, &[4]),
        (TaskInstanceFilter { dag_run_ids: runs.iter().map(|run| run.id).collect(), ..any() }, &[1, 2, 3, 4]),
        (TaskInstanceFilter { dag_ids: vec!["d".into(), "none".into()], ..any() }, &[1, 2, 3]),
        (TaskInstanceFilter { run_ids: vec![runs[0].run_id.clone()], ..any() }, &[1, 2, 3]),
        (TaskInstanceFilter { task_ids: vec!["b_task".into(), "c".into()], ..any() }, &[1, 3, 4]),
        (TaskInstanceFilter { name_contains: Some("A_TAS".to_owned()), ..any() }, &[2]),
        (TaskInstanceFilter { name_contains: Some("ra%".to_owned()), ..any() }, &[2]),
        (TaskInstanceFilter { name_contains: Some("_".to_owned()), ..any() }, &[1, 2, 4]),
        (TaskInstanceFilter { map_indexes: vec![MapIndex(7), MapIndex(8)], ..any() }, &[2]),
        (TaskInstanceFilter { states: vec![State::Running, State::Success], ..any() }, &[1, 3]),
        (TaskInstanceFilter { states: vec![State::None], ..any() }, &[4]),
        (TaskInstanceFilter { pools: vec!["p".into()], ..any() }, &[2]),
        (TaskInstanceFilter { queues: vec!["q".into()], ..any() }, &[2]),
        (TaskInstanceFilter { operators: vec!["BashOperator".to_owned()], ..any() }, &[2]),
        (TaskInstanceFilter { logical_date: from(at(0)), ..any() }, &[1, 2, 3]),
        (TaskInstanceFilter { run_after: before(at(2 * 86_400 + 1)), ..any() }, &[4]),
        (TaskInstanceFilter { start_date: from(at(25)), ..any() }, &[1, 3]),
        (TaskInstanceFilter { end_date: before(at(41)), ..any() }, &[1]),
        (TaskInstanceFilter { updated_at: from(at(300)), ..any() }, &[3, 4]),
        (TaskInstanceFilter { dag_ids: vec!["d".into()], task_ids: vec!["b_task".into()], ..any() }, &[1]),
    ];
    let mut tx = backend.read().await;
    for (filter, expected) in cases {
        let listing = tx.task_instances(&filter, &Page::first(10)).await.unwrap();
        assert_eq!(numbers(&all, &listing.items), expected, "{filter:?}");
        assert_eq!(listing.total, expected.len() as u64, "{filter:?}");
    }
}

async fn task_instances_by_every_sort(backend: &Backend) {
    use Direction::{Ascending, Descending};
    let (_, all) = four_task_instances(backend).await;
    let cases: Vec<(TaskInstanceSort, Direction, [usize; 4])> = vec![
        (TaskInstanceSort::TaskId, Ascending, [2, 1, 4, 3]),
        (TaskInstanceSort::TaskId, Descending, [3, 1, 4, 2]),
        (TaskInstanceSort::MapIndex, Ascending, [1, 3, 4, 2]),
        (TaskInstanceSort::MapIndex, Descending, [2, 1, 3, 4]),
        (TaskInstanceSort::State, Ascending, [2, 4, 3, 1]),
        (TaskInstanceSort::StartDate, Ascending, [2, 3, 1, 4]),
        (TaskInstanceSort::StartDate, Descending, [1, 3, 2, 4]),
        (TaskInstanceSort::EndDate, Ascending, [1, 2, 3, 4]),
        (TaskInstanceSort::EndDate, Descending, [2, 1, 3, 4]),
        (TaskInstanceSort::LogicalDate, Ascending, [1, 2, 3, 4]),
        (TaskInstanceSort::LogicalDate, Descending, [1, 2, 3, 4]),
        (TaskInstanceSort::RunAfter, Ascending, [4, 1, 2, 3]),
        (TaskInstanceSort::RunAfter, Descending, [1, 2, 3, 4]),
        (TaskInstanceSort::TryNumber, Ascending, [4, 2, 1, 3]),
        (TaskInstanceSort::QueuedAt, Ascending, [1, 2, 3, 4]),
        (TaskInstanceSort::QueuedAt, Descending, [2, 1, 3, 4]),
    ];
    let mut tx = backend.read().await;
    for (sort, direction, expected) in cases {
        let page = Page { limit: 10, offset: 0, sort: vec![(sort, direction)] };
        let listing = tx.task_instances(&TaskInstanceFilter::default(), &page).await.unwrap();
        assert_eq!(numbers(&all, &listing.items), expected, "{sort:?} {direction:?}");
    }
}

async fn task_instances_in_pages_with_totals(backend: &Backend) {
    let (_, all) = four_task_instances(backend).await;
    let mut tx = backend.read().await;
    let mut seen = Vec::new();
    for offset in [0, 3, 6] {
        let page = Page { limit: 3, offset, sort: vec![(TaskInstanceSort::MapIndex, Direction::Ascending)] };
        let listing = tx.task_instances(&TaskInstanceFilter::default(), &page).await.unwrap();
        assert_eq!(listing.total, 4);
        seen.extend(listing.items);
    }
    assert_eq!(numbers(&all, &seen), [1, 3, 4, 2]);
}

async fn task_instances_of_a_run_or_of_some_of_its_tasks(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let at_index =
        |task: &str, index| TaskInstance { map_index: MapIndex(index), ..task_instance(&run, task) };
    let rows = [at_index("b", 10), at_index("b", 2), at_index("a", -1), at_index("Z", -1)];
    put_task_instances(backend, &rows).await;
    let [b10, b2, a, z] = rows;
    let mut tx = backend.read().await;
    let all = tx.task_instances_of(run.id, &[]).await.unwrap();
    assert_eq!(all, [z, a.clone(), b2.clone(), b10.clone()]);
    assert_eq!(tx.task_instances_of(run.id, &["b".into(), "none".into()]).await.unwrap(), [b2, b10]);
    assert_eq!(tx.task_instances_of(run.id, &["none".into()]).await.unwrap(), []);
}

async fn changed_task_instances_are_dirty_ones_and_rests_that_are_over(backend: &Backend) {
    let (record, run_1) = one_run(backend).await;
    let run_2 = run(&record, 2);
    put_runs(backend, &[&run_2]).await;
    let row = |task: &str, state, due: Option<i64>, is_dirty| TaskInstance {
        due_at: due.map(at),
        is_dirty,
        ..in_state(&run_1, task, state)
    };
    let rows = [
        row("dirty", State::Success, None, true),
        row("clean", State::Success, None, false),
        row("retry", State::UpForRetry, Some(100), false),
        row("retry later", State::UpForRetry, Some(101), false),
        row("reschedule", State::UpForReschedule, Some(1), false),
        row("deferred", State::Deferred, Some(1), false),
        TaskInstance { is_dirty: true, ..task_instance(&run_2, "elsewhere") },
    ];
    put_task_instances(backend, &rows).await;
    let mut tx = backend.write().await;
    let changed = tx.lock_changed_task_instances(run_1.id, at(100), 10).await.unwrap();
    assert_eq!(changed, [rows[0].clone(), rows[2].clone(), rows[4].clone()]);
    assert_eq!(tx.lock_changed_task_instances(run_1.id, at(100), 2).await.unwrap(), changed[..2]);
}

async fn deleting_task_instances_takes_what_hangs_on_them(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let rows = [task_instance(&run, "a"), task_instance(&run, "b"), task_instance(&run, "c")];
    put_task_instances(backend, &rows).await;
    let mut tx = backend.write().await;
    for row in &rows {
        tx.insert_try(row).await.unwrap();
        tx.put_rendered_fields(row.id, &json!({})).await.unwrap();
        tx.insert_reschedule(&reschedule(row, 0, 1)).await.unwrap();
    }
    tx.delete_task_instances(&[rows[0].id, rows[2].id, TaskInstanceId(id())]).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = backend.read().await;
    assert_eq!(tx.task_instances_of(run.id, &[]).await.unwrap(), [rows[1].clone()]);
    for (row, kept) in rows.iter().zip([0, 1, 0]) {
        assert_eq!(tx.tries(row.id).await.unwrap().len(), kept);
        assert_eq!(tx.reschedules(row.id, 0).await.unwrap().len(), kept);
        assert_eq!(usize::from(tx.rendered_fields(row.id).await.unwrap().is_some()), kept);
    }
}

async fn ten_thousand_task_instances_are_inserted_and_updated(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let rows: Vec<TaskInstance> = (0..10_000)
        .map(|index| TaskInstance { map_index: MapIndex(index), ..task_instance(&run, "t") })
        .collect();
    put_task_instances(backend, &rows).await;
    let writes: Vec<TaskInstanceWrite> = rows
        .iter()
        .enumerate()
        .map(|(n, row)| TaskInstanceWrite {
            id: row.id,
            guard: if n % 2 == 0 { Guard::State(State::None) } else { Guard::State(State::Running) },
            patch: to_state(State::Scheduled),
        })
        .collect();
    let mut tx = backend.write().await;
    let mut written = tx.update_task_instances(&writes).await.unwrap();
    tx.commit().await.unwrap();
    written.sort();
    let even: Vec<TaskInstanceId> = rows.iter().step_by(2).map(|row| row.id).collect();
    assert_eq!(written, even);
    let mut tx = backend.write().await;
    assert_eq!(tx.task_instances_of(run.id, &[]).await.unwrap().len(), 10_000);
    let ids: Vec<TaskInstanceId> = rows.iter().map(|row| row.id).collect();
    let of_ids = TaskInstanceFilter {
        dag_run_ids: vec![run.id],
        states: vec![State::Scheduled],
        ..TaskInstanceFilter::default()
    };
    assert_eq!(tx.task_instances(&of_ids, &Page::first(1)).await.unwrap().total, 5_000);
    tx.delete_task_instances(&ids).await.unwrap();
    assert_eq!(tx.task_instances_of(run.id, &[]).await.unwrap(), []);
}

async fn empty_batches_do_nothing(backend: &Backend) {
    let mut tx = backend.write().await;
    tx.insert_task_instances(&[]).await.unwrap();
    assert_eq!(tx.update_task_instances(&[]).await.unwrap(), []);
    tx.delete_task_instances(&[]).await.unwrap();
    tx.put_xcoms(&[]).await.unwrap();
    tx.put_tallies(&[]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn tries_that_are_over_by_number(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let row = task_instance(&run, "t");
    put_task_instances(backend, std::slice::from_ref(&row)).await;
    let attempt = |number: i32, state| TaskInstance {
        try_number: number,
        state,
        start_date: Some(at(number.into())),
        end_date: Some(at(100)),
        hostname: Some("h".to_owned()),
        dag_version_id: DagVersionId(id()),
        ..row.clone()
    };
    let tries = [attempt(10, State::Failed), attempt(1, State::UpForRetry), attempt(2, State::Skipped)];
    let mut tx = backend.write().await;
    for row in &tries {
        tx.insert_try(row).await.unwrap();
    }
    let [tenth, first, second] = tries;
    assert_eq!(tx.tries(row.id).await.unwrap(), [first, second, tenth]);
    assert_eq!(tx.tries(TaskInstanceId(id())).await.unwrap(), []);
    assert_eq!(tx.task_instance(row.id).await.unwrap(), Some(row), "the current one is untouched");
}

fn reschedule(row: &TaskInstance, try_number: i32, start: i64) -> TaskReschedule {
    TaskReschedule {
        task_instance_id: row.id,
        try_number,
        start_date: at(start),
        end_date: at(start + 1),
        reschedule_date: at(start + 60),
    }
}

async fn reschedules_of_a_try_by_start(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let rows = [task_instance(&run, "a"), task_instance(&run, "b")];
    put_task_instances(backend, &rows).await;
    let mut tx = backend.write().await;
    for (row, number, start) in [(0, 1, 20), (0, 1, 10), (0, 2, 5), (1, 1, 1), (0, 1, 30)] {
        tx.insert_reschedule(&reschedule(&rows[row], number, start)).await.unwrap();
    }
    let expected = [10, 20, 30].map(|start| reschedule(&rows[0], 1, start));
    assert_eq!(tx.reschedules(rows[0].id, 1).await.unwrap(), expected);
    assert_eq!(tx.reschedules(rows[0].id, 3).await.unwrap(), []);
}
