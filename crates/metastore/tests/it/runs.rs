//! Runs and tallies.

use std::collections::BTreeMap;

use gust_model::{
    BackfillId, DagId, DagRunId, DagRunState, DagRunType, RunId, TaskId, TaskInstanceState as State,
    record::{DagRecord, DagRun, TaskInstance, TaskTally, UpstreamTally},
};
use gust_ports::metastore::{
    DagRunFilter, DagRunPatch, DagRunSort, Direction, LockWait, Page, TimeRange, XComFilter,
};
use serde_json::Value;

use crate::{
    backend::Backend,
    behaviours,
    fixtures::{at, dag, id, in_state, one_run, put_dag, put_runs, put_task_instances, run},
};

behaviours! { everywhere:
    run_is_stored_whole
    run_with_nothing_optional_is_stored_whole
    every_type_and_state_of_a_run_is_stored
    a_run_id_is_unique_within_its_dag
    a_logical_date_is_unique_within_its_dag
    runs_without_a_date_do_not_clash
    a_clash_leaves_the_transaction_usable
    lock_returns_the_run_or_nothing
    runs_by_every_filter
    runs_by_every_sort
    runs_in_pages_with_totals
    newest_runs_of_each_dag
    runs_to_advance_have_something_to_advance
    runs_to_start_are_queued_and_have_come
    runs_to_start_of_a_full_dag_hide_no_other
    next_due_run_is_the_earliest_in_the_future
    runs_are_counted_by_state
    previous_and_following_runs_by_logical_date
    last_automated_run_is_the_newest_of_the_timetable
    last_finished_states_newest_first
    tallies_are_written_and_overwritten
    deleting_a_run_takes_all_that_hangs_on_it
}

async fn run_is_stored_whole(backend: &Backend) {
    let record = dag("d");
    put_dag(backend, &record).await;
    let full = DagRun {
        run_type: DagRunType::Backfill,
        start_date: Some(at(11)),
        end_date: Some(at(12)),
        backfill_id: Some(BackfillId(id())),
        partition_key: Some("teil".to_owned()),
        note: Some("Notiz".to_owned()),
        clear_number: 2,
        is_expanded: false,
        is_dirty: true,
        due_at: Some(at(13)),
        last_scheduling_decision: Some(at(14)),
        change_seq: 77,
        ..run(&record, 1)
    };
    put_runs(backend, &[&full]).await;
    let mut tx = backend.read().await;
    assert_eq!(tx.dag_run(&full.dag_id, &full.run_id).await.unwrap(), Some(full.clone()));
    assert_eq!(tx.dag_run_by_id(full.id).await.unwrap(), Some(full.clone()));
    assert_eq!(tx.dag_run(&full.dag_id, &"none".into()).await.unwrap(), None);
    assert_eq!(tx.dag_run(&"none".into(), &full.run_id).await.unwrap(), None);
    assert_eq!(tx.dag_run_by_id(DagRunId(id())).await.unwrap(), None);
}

fn bare(dag: &DagRecord, run_id: &str) -> DagRun {
    DagRun {
        run_id: RunId::from(run_id),
        run_type: DagRunType::Manual,
        logical_date: None,
        data_interval_start: None,
        data_interval_end: None,
        conf: Value::Null,
        triggered_by: None,
        triggering_user: None,
        bundle_version: None,
        ..run(dag, 1)
    }
}

async fn run_with_nothing_optional_is_stored_whole(backend: &Backend) {
    let record = dag("d");
    put_dag(backend, &record).await;
    let bare = bare(&record, "manual__2026 ü/'\"");
    put_runs(backend, &[&bare]).await;
    let stored = backend.read().await.dag_run(&bare.dag_id, &bare.run_id).await.unwrap();
    assert_eq!(stored, Some(bare));
}

async fn every_type_and_state_of_a_run_is_stored(backend: &Backend) {
    let record = dag("d");
    put_dag(backend, &record).await;
    for run_type in DagRunType::ALL {
        for state in DagRunState::ALL {
            let run = DagRun {
                run_type: *run_type,
                state: *state,
                ..bare(&record, &format!("{run_type} {state}"))
            };
            put_runs(backend, &[&run]).await;
            assert_eq!(backend.read().await.dag_run_by_id(run.id).await.unwrap(), Some(run));
        }
    }
}

async fn a_run_id_is_unique_within_its_dag(backend: &Backend) {
    let (record, first) = one_run(backend).await;
    let other = dag("other");
    put_dag(backend, &other).await;
    let mut tx = backend.write().await;
    let clash = DagRun { run_id: first.run_id.clone(), ..run(&record, 9) };
    assert!(!tx.insert_dag_run(&clash).await.unwrap());
    assert_eq!(tx.dag_run_by_id(clash.id).await.unwrap(), None);
    let elsewhere = run(&other, 1);
    assert_eq!(elsewhere.run_id, first.run_id);
    assert!(tx.insert_dag_run(&elsewhere).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(backend.read().await.dag_run(&record.dag_id, &first.run_id).await.unwrap(), Some(first));
}

async fn a_logical_date_is_unique_within_its_dag(backend: &Backend) {
    let (record, first) = one_run(backend).await;
    let mut tx = backend.write().await;
    let clash = DagRun { run_id: "another id".into(), ..run(&record, 1) };
    assert_eq!(clash.logical_date, first.logical_date);
    assert!(!tx.insert_dag_run(&clash).await.unwrap());
    assert_eq!(tx.dag_run(&record.dag_id, &clash.run_id).await.unwrap(), None);
    assert!(tx.delete_dag_run(first.id).await.unwrap());
    assert!(tx.insert_dag_run(&clash).await.unwrap(), "the date is free again");
}

async fn runs_without_a_date_do_not_clash(backend: &Backend) {
    let record = dag("d");
    put_dag(backend, &record).await;
    let mut tx = backend.write().await;
    for n in 0..3 {
        assert!(tx.insert_dag_run(&bare(&record, &n.to_string())).await.unwrap());
    }
}

async fn a_clash_leaves_the_transaction_usable(backend: &Backend) {
    let (record, _) = one_run(backend).await;
    let mut tx = backend.write().await;
    assert!(!tx.insert_dag_run(&run(&record, 1)).await.unwrap());
    assert!(tx.insert_dag_run(&run(&record, 2)).await.unwrap());
    tx.commit().await.unwrap();
    let page = Page::first(9);
    assert_eq!(backend.read().await.dag_runs(&DagRunFilter::default(), &page).await.unwrap().total, 2);
}

async fn lock_returns_the_run_or_nothing(backend: &Backend) {
    let (_, run) = one_run(backend).await;
    let mut tx = backend.write().await;
    for wait in [LockWait::Wait, LockWait::SkipLocked] {
        assert_eq!(tx.lock_dag_run(run.id, wait).await.unwrap(), Some(run.clone()));
        assert_eq!(tx.lock_dag_run(DagRunId(id()), wait).await.unwrap(), None);
    }
}

/// Runs `1` to `3` of the DAG `d` and one of `e`; their start is their number, `3` has neither start nor date.
async fn four_runs(backend: &Backend) -> Vec<DagRun> {
    let (d, e) = (dag("d"), dag("e"));
    put_dag(backend, &d).await;
    put_dag(backend, &e).await;
    let first = DagRun {
        run_id: "One_run".into(),
        state: DagRunState::Success,
        start_date: Some(at(1)),
        end_date: Some(at(11)),
        queued_at: at(40),
        ..run(&d, 1)
    };
    let second = DagRun {
        run_id: "two%run".into(),
        state: DagRunState::Failed,
        run_type: DagRunType::Backfill,
        start_date: Some(at(2)),
        end_date: Some(at(10)),
        queued_at: at(30),
        ..run(&d, 2)
    };
    let third = DagRun {
        run_id: "three".into(),
        state: DagRunState::Queued,
        run_type: DagRunType::Manual,
        logical_date: None,
        start_date: None,
        queued_at: at(20),
        run_after: at(3),
        ..run(&d, 3)
    };
    let other = DagRun { run_id: "One_run".into(), start_date: Some(at(4)), queued_at: at(10), ..run(&e, 4) };
    let runs = vec![first, second, third, other];
    put_runs(backend, &runs.iter().collect::<Vec<_>>()).await;
    runs
}

fn numbers(all: &[DagRun], found: &[DagRun]) -> Vec<usize> {
    found.iter().map(|run| 1 + all.iter().position(|r| r == run).unwrap()).collect()
}

async fn runs_by_every_filter(backend: &Backend) {
    let all = four_runs(backend).await;
    let any = DagRunFilter::default;
    let from = |moment| TimeRange { gte: Some(moment), ..TimeRange::default() };
    let after = |moment| TimeRange { gt: Some(moment), ..TimeRange::default() };
    let to = |moment| TimeRange { lte: Some(moment), ..TimeRange::default() };
    let before = |moment| TimeRange { lt: Some(moment), ..TimeRange::default() };
    let day = |n: i64| at(n * 86_400);
    let cases: Vec<(DagRunFilter, &[usize])> = vec![
        (any(), &[1, 2, 3, 4]),
        (DagRunFilter { dag_ids: vec!["d".into()], ..any() }, &[1, 2, 3]),
        (DagRunFilter { dag_ids: vec!["e".into(), "d".into()], ..any() }, &[1, 2, 3, 4]),
        (DagRunFilter { run_ids: vec!["One_run".into(), "three".into()], ..any() }, &[1, 3, 4]),
        (DagRunFilter { run_id_contains: Some("E_R".to_owned()), ..any() }, &[1, 4]),
        (DagRunFilter { run_id_contains: Some("o%R".to_owned()), ..any() }, &[2]),
        (DagRunFilter { run_id_contains: Some("%".to_owned()), ..any() }, &[2]),
        (DagRunFilter { states: vec![DagRunState::Queued, DagRunState::Failed], ..any() }, &[2, 3]),
        (DagRunFilter { run_types: vec![DagRunType::Backfill, DagRunType::Manual], ..any() }, &[2, 3]),
        (DagRunFilter { logical_date: from(day(2)), ..any() }, &[2, 4]),
        (DagRunFilter { logical_date: after(day(2)), ..any() }, &[4]),
        (DagRunFilter { logical_date: to(day(2)), ..any() }, &[1, 2]),
        (DagRunFilter { logical_date: before(day(2)), ..any() }, &[1]),
        (
            DagRunFilter {
                logical_date: TimeRange { gte: Some(day(1)), lt: Some(day(4)), ..TimeRange::default() },
                ..any()
            },
            &[1, 2],
        ),
        (DagRunFilter { run_after: to(day(2)), ..any() }, &[1, 3]),
        (DagRunFilter { start_date: from(at(2)), ..any() }, &[2, 4]),
        (DagRunFilter { start_date: before(at(2)), ..any() }, &[1]),
        (DagRunFilter { end_date: from(at(11)), ..any() }, &[1]),
        (DagRunFilter { end_date: before(at(99)), ..any() }, &[1, 2]),
        (DagRunFilter { dag_ids: vec!["d".into()], run_ids: vec!["One_run".into()], ..any() }, &[1]),
        (DagRunFilter { dag_ids: vec!["none".into()], ..any() }, &[]),
    ];
    let mut tx = backend.write().await;
    for (filter, expected) in cases {
        let listing = tx.dag_runs(&filter, &Page::first(10)).await.unwrap();
        assert_eq!(numbers(&all, &listing.items), expected, "{filter:?}");
        assert_eq!(listing.total, expected.len() as u64, "{filter:?}");
    }
    // The last write of a row is on the database's clock.
    let now = tx.now().await.unwrap();
    tx.update_dag_run(all[1].id, &DagRunPatch::default()).await.unwrap();
    let written = DagRunFilter { updated_at: from(now), ..any() };
    let found = tx.dag_runs(&written, &Page::first(10)).await.unwrap().items;
    assert_eq!(found.iter().map(|run| run.id).collect::<Vec<_>>(), [all[1].id]);
    let earlier = DagRunFilter { updated_at: before(now), ..any() };
    assert_eq!(tx.dag_runs(&earlier, &Page::first(10)).await.unwrap().total, 3);
}

async fn runs_by_every_sort(backend: &Backend) {
    use Direction::{Ascending, Descending};
    let all = four_runs(backend).await;
    let cases: Vec<(DagRunSort, Direction, [usize; 4])> = vec![
        (DagRunSort::QueuedAt, Ascending, [4, 3, 2, 1]),
        (DagRunSort::QueuedAt, Descending, [1, 2, 3, 4]),
        (DagRunSort::DagId, Ascending, [1, 2, 3, 4]),
        (DagRunSort::DagId, Descending, [4, 1, 2, 3]),
        (DagRunSort::RunId, Ascending, [1, 4, 3, 2]),
        (DagRunSort::RunId, Descending, [2, 3, 1, 4]),
        (DagRunSort::LogicalDate, Ascending, [1, 2, 4, 3]),
        (DagRunSort::LogicalDate, Descending, [4, 2, 1, 3]),
        (DagRunSort::RunAfter, Ascending, [3, 1, 2, 4]),
        (DagRunSort::StartDate, Ascending, [1, 2, 4, 3]),
        (DagRunSort::StartDate, Descending, [4, 2, 1, 3]),
        (DagRunSort::EndDate, Ascending, [2, 1, 3, 4]),
        (DagRunSort::EndDate, Descending, [1, 2, 3, 4]),
        (DagRunSort::State, Ascending, [2, 3, 4, 1]),
    ];
    let mut tx = backend.read().await;
    for (sort, direction, expected) in cases {
        let page = Page { limit: 10, offset: 0, sort: vec![(sort, direction)] };
        let listing = tx.dag_runs(&DagRunFilter::default(), &page).await.unwrap();
        assert_eq!(numbers(&all, &listing.items), expected, "{sort:?} {direction:?}");
    }
}

async fn runs_in_pages_with_totals(backend: &Backend) {
    let all = four_runs(backend).await;
    let mut tx = backend.read().await;
    let mut seen = Vec::new();
    for offset in 0..5 {
        let page = Page { limit: 1, offset, sort: vec![(DagRunSort::DagId, Direction::Descending)] };
        let listing = tx.dag_runs(&DagRunFilter::default(), &page).await.unwrap();
        assert_eq!(listing.total, 4);
        seen.extend(listing.items);
    }
    assert_eq!(numbers(&all, &seen), [4, 1, 2, 3]);
}

async fn newest_runs_of_each_dag(backend: &Backend) {
    let (d, e) = (dag("d"), dag("e"));
    let mut runs = Vec::new();
    for (record, days) in [(&d, vec![2, 3, 1]), (&e, vec![5])] {
        put_dag(backend, record).await;
        runs.extend(days.into_iter().map(|day| run(record, day)));
    }
    put_runs(backend, &runs.iter().collect::<Vec<_>>()).await;
    let mut tx = backend.read().await;
    let newest = tx.newest_dag_runs(&["d".into(), "e".into(), "none".into()], 2).await.unwrap();
    let of = |dag: &str| newest.iter().filter(|run| run.dag_id == *dag).cloned().collect::<Vec<_>>();
    assert_eq!(of("d"), [runs[1].clone(), runs[0].clone()]);
    assert_eq!(of("e"), [runs[3].clone()]);
    assert_eq!(newest.len(), 3);
    assert_eq!(tx.newest_dag_runs(&[], 2).await.unwrap(), []);
}

async fn runs_to_advance_have_something_to_advance(backend: &Backend) {
    let record = dag("d");
    put_dag(backend, &record).await;
    let paused = DagRecord { is_paused: true, ..dag("paused") };
    put_dag(backend, &paused).await;
    let mut runs: BTreeMap<&str, DagRun> = BTreeMap::new();
    for (day, name) in [
        "nothing",
        "dirty",
        "due",
        "due later",
        "dirty task",
        "retry due",
        "retry later",
        "reschedule due",
        "deferred due",
        "dirty but queued",
        "dirty but ended",
    ]
    .into_iter()
    .enumerate()
    {
        runs.insert(name, run(&record, i64::try_from(day).unwrap()));
    }
    runs.insert("dirty of a paused DAG", run(&paused, 1));
    let mut change = |name: &str, change: fn(&mut DagRun)| change(runs.get_mut(name).unwrap());
    change("dirty", |run| run.is_dirty = true);
    change("dirty of a paused DAG", |run| run.is_dirty = true);
    change("due", |run| run.due_at = Some(at(100)));
    change("due later", |run| run.due_at = Some(at(101)));
    change("dirty but queued", |run| (run.is_dirty, run.state) = (true, DagRunState::Queued));
    change("dirty but ended", |run| (run.is_dirty, run.state) = (true, DagRunState::Success));
    put_runs(backend, &runs.values().collect::<Vec<_>>()).await;
    let task = |name: &str, state: State, due: Option<i64>, is_dirty: bool| TaskInstance {
        due_at: due.map(at),
        is_dirty,
        ..in_state(&runs[name], "t", state)
    };
    put_task_instances(
        backend,
        &[
            task("nothing", State::Running, None, false),
            task("dirty task", State::Success, None, true),
            task("retry due", State::UpForRetry, Some(100), false),
            task("retry later", State::UpForRetry, Some(101), false),
            task("reschedule due", State::UpForReschedule, Some(99), false),
            task("deferred due", State::Deferred, Some(1), false),
        ],
    )
    .await;
    let mut tx = backend.read().await;
    let found = tx.dag_runs_to_advance(at(100), 20).await.unwrap();
    let mut names: Vec<&str> =
        found.iter().map(|id| *runs.iter().find(|(_, run)| run.id == *id).unwrap().0).collect();
    names.sort_unstable();
    assert_eq!(names, ["dirty", "dirty of a paused DAG", "dirty task", "due", "reschedule due", "retry due"]);
    let first = tx.dag_runs_to_advance(at(100), 2).await.unwrap();
    assert_eq!(first.len(), 2);
    assert!(first.iter().all(|id| found.contains(id)));
}

async fn runs_to_start_are_queued_and_have_come(backend: &Backend) {
    let record = dag("d");
    let paused = DagRecord { is_paused: true, ..dag("paused") };
    put_dag(backend, &record).await;
    put_dag(backend, &paused).await;
    let queued = |dag: &DagRecord, day, run_after| DagRun {
        state: DagRunState::Queued,
        run_after: at(run_after),
        ..run(dag, day)
    };
    let later = queued(&record, 1, 100);
    let sooner = queued(&record, 2, 50);
    let not_yet = queued(&record, 3, 101);
    let of_paused = queued(&paused, 1, 1);
    let running = DagRun { run_after: at(1), ..run(&record, 4) };
    put_runs(backend, &[&later, &sooner, &not_yet, &of_paused, &running]).await;
    let mut tx = backend.read().await;
    assert_eq!(tx.dag_runs_to_start(at(100), 10).await.unwrap(), [sooner.clone(), later]);
    assert_eq!(tx.dag_runs_to_start(at(100), 1).await.unwrap(), [sooner]);
}

async fn runs_to_start_of_a_full_dag_hide_no_other(backend: &Backend) {
    let busy = DagRecord { max_active_runs: 2, ..dag("busy") };
    let other = dag("other");
    put_dag(backend, &busy).await;
    put_dag(backend, &other).await;
    let queued = |dag: &DagRecord, day, run_after| DagRun {
        state: DagRunState::Queued,
        run_after: at(run_after),
        ..run(dag, day)
    };
    let running = run(&busy, 1);
    let fits = queued(&busy, 2, 10);
    let waits: Vec<DagRun> = (3..8).map(|day| queued(&busy, day, 10 + day)).collect();
    let behind = queued(&other, 1, 90);
    let backfill = DagRun { run_type: DagRunType::Backfill, ..queued(&busy, 9, 95) };
    put_runs(backend, &[&running, &fits, &behind, &backfill]).await;
    put_runs(backend, &waits.iter().collect::<Vec<_>>()).await;
    let found = backend.read().await.dag_runs_to_start(at(100), 3).await.unwrap();
    assert_eq!(found, [fits, behind, backfill]);
}

async fn next_due_run_is_the_earliest_in_the_future(backend: &Backend) {
    let record = dag("d");
    let paused = DagRecord { is_paused: true, ..dag("paused") };
    put_dag(backend, &record).await;
    put_dag(backend, &paused).await;
    assert_eq!(backend.read().await.next_due_run_at(at(0)).await.unwrap(), None);
    let limited = DagRun { due_at: Some(at(40)), ..run(&record, 1) };
    let queued = DagRun { state: DagRunState::Queued, run_after: at(30), ..run(&record, 2) };
    let ended = DagRun { state: DagRunState::Success, due_at: Some(at(1)), ..run(&record, 3) };
    let of_paused = DagRun { state: DagRunState::Queued, run_after: at(5), ..run(&paused, 1) };
    put_runs(backend, &[&limited, &queued, &ended, &of_paused]).await;
    let resting =
        |task: &str, state, due| TaskInstance { due_at: Some(at(due)), ..in_state(&limited, task, state) };
    let rows = [
        resting("a", State::UpForRetry, 20),
        resting("b", State::UpForReschedule, 10),
        resting("c", State::Deferred, 6),
    ];
    put_task_instances(backend, &rows).await;
    let mut tx = backend.read().await;
    for (now, expected) in [(0, Some(10)), (10, Some(20)), (20, Some(30)), (30, Some(40)), (40, None)] {
        assert_eq!(tx.next_due_run_at(at(now)).await.unwrap(), expected.map(at), "after {now}");
    }
}

async fn runs_are_counted_by_state(backend: &Backend) {
    let (record, other) = (dag("d"), dag("e"));
    put_dag(backend, &record).await;
    put_dag(backend, &other).await;
    let backfill =
        DagRun { run_type: DagRunType::Backfill, backfill_id: Some(BackfillId(id())), ..run(&record, 3) };
    let queued = DagRun { state: DagRunState::Queued, ..run(&record, 4) };
    put_runs(backend, &[&run(&record, 1), &run(&record, 2), &backfill, &queued, &run(&other, 1)]).await;
    let mut tx = backend.read().await;
    let d = DagId::from("d");
    assert_eq!(tx.count_dag_runs(&d, &[DagRunState::Running], true).await.unwrap(), 3);
    assert_eq!(tx.count_dag_runs(&d, &[DagRunState::Running], false).await.unwrap(), 2);
    let unfinished = [DagRunState::Running, DagRunState::Queued];
    assert_eq!(tx.count_dag_runs(&d, &unfinished, false).await.unwrap(), 3);
    assert_eq!(tx.count_dag_runs(&d, &[DagRunState::Success], true).await.unwrap(), 0);
    assert_eq!(tx.count_dag_runs(&"none".into(), &unfinished, true).await.unwrap(), 0);
}

async fn previous_and_following_runs_by_logical_date(backend: &Backend) {
    let (record, other) = (dag("d"), dag("e"));
    put_dag(backend, &record).await;
    put_dag(backend, &other).await;
    let first = DagRun { state: DagRunState::Success, ..run(&record, 1) };
    let second = DagRun { state: DagRunState::Failed, ..run(&record, 2) };
    let third = run(&record, 3);
    let dateless = DagRun { logical_date: None, run_id: "manual".into(), ..run(&record, 2) };
    let elsewhere = DagRun { state: DagRunState::Success, ..run(&other, 2) };
    put_runs(backend, &[&third, &first, &second, &dateless, &elsewhere]).await;
    let mut tx = backend.read().await;
    let d = DagId::from("d");
    let date = |run: &DagRun| run.logical_date.unwrap();
    let all = DagRunState::ALL;
    assert_eq!(tx.previous_dag_run(&d, date(&third), all).await.unwrap(), Some(second.clone()));
    assert_eq!(
        tx.previous_dag_run(&d, date(&third), &[DagRunState::Success]).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(tx.previous_dag_run(&d, date(&first), all).await.unwrap(), None);
    assert_eq!(tx.following_dag_run(&d, date(&first)).await.unwrap(), Some(second));
    assert_eq!(tx.following_dag_run(&d, date(&third)).await.unwrap(), None);
}

async fn last_automated_run_is_the_newest_of_the_timetable(backend: &Backend) {
    let record = dag("d");
    put_dag(backend, &record).await;
    let of_type = |day, run_type| DagRun { run_type, ..run(&record, day) };
    let d = DagId::from("d");
    put_runs(backend, &[&of_type(9, DagRunType::Manual), &of_type(8, DagRunType::AssetTriggered)]).await;
    assert_eq!(backend.read().await.last_automated_dag_run(&d).await.unwrap(), None);
    let scheduled = of_type(3, DagRunType::Scheduled);
    put_runs(backend, &[&scheduled, &of_type(2, DagRunType::Scheduled)]).await;
    assert_eq!(backend.read().await.last_automated_dag_run(&d).await.unwrap(), Some(scheduled));
    let backfill = of_type(4, DagRunType::Backfill);
    put_runs(backend, &[&backfill, &of_type(1, DagRunType::Backfill)]).await;
    assert_eq!(backend.read().await.last_automated_dag_run(&d).await.unwrap(), Some(backfill));
}

async fn last_finished_states_newest_first(backend: &Backend) {
    use DagRunState::{Failed, Running, Success};
    let record = dag("d");
    put_dag(backend, &record).await;
    let of_state = |day, state| DagRun { state, ..run(&record, day) };
    let runs = [of_state(4, Running), of_state(1, Success), of_state(3, Failed), of_state(2, Success)];
    put_runs(backend, &runs.iter().collect::<Vec<_>>()).await;
    let mut tx = backend.read().await;
    assert_eq!(tx.last_finished_states(&"d".into(), 9).await.unwrap(), [Failed, Success, Success]);
    assert_eq!(tx.last_finished_states(&"d".into(), 1).await.unwrap(), [Failed]);
    assert_eq!(tx.last_finished_states(&"none".into(), 9).await.unwrap(), []);
}

async fn tallies_are_written_and_overwritten(backend: &Backend) {
    let (record, run_1) = one_run(backend).await;
    let run_2 = run(&record, 2);
    put_runs(backend, &[&run_2]).await;
    let tally = |run: &DagRun, task: &str, n: u32| TaskTally {
        dag_run_id: run.id,
        task_id: TaskId::from(task),
        expanded_length: (n > 1).then_some(n),
        own: BTreeMap::from([(State::Success, n), (State::None, 1)]),
        upstream: UpstreamTally {
            total: n + 1,
            success: n + 2,
            skipped: n + 3,
            failed: n + 4,
            upstream_failed: n + 5,
            removed: n + 6,
            setup_total: n + 7,
            success_setup: n + 8,
            skipped_setup: n + 9,
        },
    };
    let mut tx = backend.write().await;
    tx.put_tallies(&[tally(&run_1, "b", 1), tally(&run_1, "a", 2), tally(&run_2, "a", 3)]).await.unwrap();
    tx.put_tallies(&[]).await.unwrap();
    let empty = TaskTally { own: BTreeMap::new(), ..tally(&run_1, "c", 0) };
    tx.put_tallies(&[tally(&run_1, "b", 9), empty.clone()]).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = backend.read().await;
    let mut all = tx.tallies(run_1.id, &[]).await.unwrap();
    all.sort_by(|a, b| a.task_id.cmp(&b.task_id));
    assert_eq!(all, [tally(&run_1, "a", 2), tally(&run_1, "b", 9), empty]);
    assert_eq!(tx.tallies(run_1.id, &["b".into(), "none".into()]).await.unwrap(), [tally(&run_1, "b", 9)]);
    assert_eq!(tx.tallies(DagRunId(id()), &[]).await.unwrap(), []);
}

async fn deleting_a_run_takes_all_that_hangs_on_it(backend: &Backend) {
    let (record, gone) = one_run(backend).await;
    let kept = run(&record, 2);
    put_runs(backend, &[&kept]).await;
    let rows = [in_state(&gone, "t", State::Success), in_state(&kept, "t", State::Success)];
    put_task_instances(backend, &rows).await;
    let mut tx = backend.write().await;
    for (run, row) in [&gone, &kept].into_iter().zip(&rows) {
        tx.insert_try(row).await.unwrap();
        tx.put_rendered_fields(row.id, &serde_json::json!({"a": 1})).await.unwrap();
        tx.put_xcoms(&[crate::xcoms::xcom(run, "t", -1, "k", 1)]).await.unwrap();
        let own = BTreeMap::new();
        let upstream = UpstreamTally::default();
        let task_id = TaskId::from("t");
        tx.put_tallies(&[TaskTally { dag_run_id: run.id, task_id, expanded_length: None, own, upstream }])
            .await
            .unwrap();
    }
    assert!(!tx.delete_dag_run(DagRunId(id())).await.unwrap());
    assert!(tx.delete_dag_run(gone.id).await.unwrap());
    assert!(!tx.delete_dag_run(gone.id).await.unwrap());
    tx.commit().await.unwrap();
    let mut tx = backend.read().await;
    assert_eq!(tx.dag_run_by_id(gone.id).await.unwrap(), None);
    assert_eq!(tx.task_instance(rows[0].id).await.unwrap(), None);
    assert_eq!(tx.tries(rows[0].id).await.unwrap(), []);
    assert_eq!(tx.rendered_fields(rows[0].id).await.unwrap(), None);
    assert_eq!(tx.tallies(gone.id, &[]).await.unwrap(), []);
    assert_eq!(tx.task_instance(rows[1].id).await.unwrap().as_ref(), Some(&rows[1]));
    assert_eq!(tx.tries(rows[1].id).await.unwrap(), [rows[1].clone()]);
    assert!(tx.rendered_fields(rows[1].id).await.unwrap().is_some());
    assert_eq!(tx.tallies(kept.id, &[]).await.unwrap().len(), 1);
    assert_eq!(tx.xcoms(&XComFilter::default(), 9, 0).await.unwrap().total, 1);
}
