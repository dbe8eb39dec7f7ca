//! What people ask for: clears, marks, and what holds after them.

use std::collections::BTreeSet;

use gust_model::{DagRunState, TaskInstanceState as S, dag::Dag, record::TaskInstance};
use gust_planner::{
    ClearRelatives, ClearedInstance, clear_instance, clear_run, mark_instance, mark_run, run_may_end,
    tasks_to_clear,
};
use rstest::rstest;
use serde_json::json;

use crate::{
    build::{dag, plain},
    world::{Act, TryOutcome, World},
};

fn success(_: &TaskInstance) -> Act {
    Act::End(TryOutcome::Success)
}

#[test]
fn a_cleared_run_runs_again_with_more_tries() {
    let serialized = dag("d").task("a", &["b"], json!({ "retries": 2 })).task("b", &[], plain()).done();
    let mut world = World::new(&serialized);
    world.play(|_| 0, success, true, 20);
    world.clear_all();
    assert_eq!(world.find("a", -1).max_tries, 3);
    world.play(|_| 0, success, true, 20);
    assert_eq!(world.run.state, DagRunState::Success);
    assert_eq!(world.find("b", -1).try_number, 2);
    assert_eq!(world.run.clear_number, 0, "the fixture applies the rest by itself");
}

#[test]
fn a_skip_that_was_decided_holds_after_a_clear() {
    let serialized = dag("d")
        .task("branch", &["left", "right"], json!({ "_can_skip_downstream": true }))
        .task("left", &["join"], plain())
        .task("right", &["join"], plain())
        .task("join", &[], json!({ "trigger_rule": "none_failed_min_one_success" }))
        .done();
    let mut world = World::new(&serialized);
    let act = |row: &TaskInstance| match row.task_id.as_str() {
        "branch" => Act::Follow(vec!["left".to_owned()]),
        _ => Act::End(TryOutcome::Success),
    };
    world.play(|_| 0, act, true, 20);
    assert_eq!((world.state_of("left", -1), world.state_of("right", -1)), (S::Success, S::Skipped));
    // Only what comes after the branch is cleared.
    let ids: Vec<_> = ["left", "right", "join"].map(|task| world.find(task, -1).id).into();
    for id in ids {
        let row = world.rows.get_mut(&id).unwrap();
        row.state = S::None;
        row.is_dirty = true;
        row.change_seq += 1;
    }
    world.run.state = DagRunState::Running;
    world.run.is_dirty = true;
    world.play(|_| 0, act, true, 20);
    assert_eq!(world.state_of("right", -1), S::Skipped);
    assert_eq!(world.state_of("left", -1), S::Success);
    assert_eq!(world.state_of("join", -1), S::Success);
}

#[test]
fn latest_only_skips_what_is_directly_after_it() {
    let serialized = dag("d")
        .task("latest_only", &["a"], json!({ "_can_skip_downstream": true }))
        .task("a", &["b"], plain())
        .task("b", &["c"], plain())
        .task("c", &[], json!({ "trigger_rule": "all_done" }))
        .done();
    let mut world = World::new(&serialized);
    let act = |row: &TaskInstance| match row.task_id.as_str() {
        "latest_only" => Act::Follow(vec![]),
        _ => Act::End(TryOutcome::Success),
    };
    world.play(|_| 0, act, true, 20);
    assert_eq!(["a", "b", "c"].map(|task| world.state_of(task, -1)), [S::Skipped, S::Skipped, S::Success]);
}

#[rstest]
#[case::all(false, [S::Skipped, S::Skipped])]
#[case::direct_only(true, [S::Skipped, S::Success])]
fn a_short_circuit_skips_all_or_the_direct_ones(#[case] direct_only: bool, #[case] expected: [S; 2]) {
    let serialized = dag("d")
        .task("short", &["a"], json!({ "_can_skip_downstream": true }))
        .task("a", &["b"], plain())
        .task("b", &[], json!({ "trigger_rule": "all_done" }))
        .done();
    let mut world = World::new(&serialized);
    let act = |row: &TaskInstance| match row.task_id.as_str() {
        "short" => Act::ShortCircuit { direct_only },
        _ => Act::End(TryOutcome::Success),
    };
    world.play(|_| 0, act, true, 20);
    assert_eq!(["a", "b"].map(|task| world.state_of(task, -1)), expected);
}

fn some_instance(state: S) -> (World, TaskInstance) {
    let mut world = World::new(&dag("d").task("a", &[], json!({ "retries": 2 })).done());
    world.advance();
    let mut row = world.rows.values().next().unwrap().clone();
    row.state = state;
    (world, row)
}

#[test]
fn a_clear_of_a_running_task_restarts_it() {
    let (world, row) = some_instance(S::Running);
    let cleared = clear_instance(&row, Some(&world.dag));
    assert!(matches!(cleared, ClearedInstance::Restarting { .. }));
    assert_eq!(cleared.state(), S::Restarting);
}

#[test]
fn a_clear_gives_as_many_tries_again_as_the_task_has() {
    let (world, row) = some_instance(S::Failed);
    let ClearedInstance::Reset { max_tries, history, .. } = clear_instance(&row, Some(&world.dag)) else {
        panic!("it is reset")
    };
    assert_eq!((row.try_number, max_tries), (1, 3));
    assert_eq!(history.unwrap().state, S::Failed);
    let ClearedInstance::Reset { max_tries, takes_back, .. } =
        clear_instance(&TaskInstance { state: S::Queued, ..row }, None)
    else {
        panic!("it is reset")
    };
    assert_eq!((max_tries, takes_back), (2, true), "without a definition its own count stands");
}

#[rstest]
#[case::finished_to_queue(DagRunState::Failed, DagRunState::Queued, DagRunState::Queued)]
#[case::finished_to_running(DagRunState::Success, DagRunState::Running, DagRunState::Running)]
#[case::running_stays(DagRunState::Running, DagRunState::Queued, DagRunState::Running)]
fn a_clear_puts_a_finished_run_back(
    #[case] from: DagRunState,
    #[case] asked: DagRunState,
    #[case] expected: DagRunState,
) {
    let (world, _) = some_instance(S::Success);
    let mut run = world.run.clone();
    run.state = from;
    let cleared = clear_run(&run, asked, None, world.now);
    assert_eq!((cleared.state, cleared.clear_number, cleared.end_date), (expected, 1, None));
    assert_eq!(cleared.start_date.is_none(), expected == DagRunState::Queued);
}

#[test]
fn a_clear_reaches_the_setups_that_a_task_needs() {
    let serialized = dag("d")
        .task("make", &["work", "clean"], json!({ "is_setup": true }))
        .task("work", &["clean", "after"], plain())
        .task("clean", &[], json!({ "is_teardown": true, "trigger_rule": "all_done_setup_success" }))
        .task("after", &[], plain())
        .done();
    let dag = Dag::from_serialized(&serialized).unwrap();
    let reach = |task: &str, relatives: ClearRelatives| -> Vec<String> {
        let named = BTreeSet::from([dag.index_of(task).unwrap()]);
        tasks_to_clear(&dag, &named, relatives)
            .into_iter()
            .map(|task| dag.task(task).task_id.to_string())
            .collect()
    };
    let downstream = ClearRelatives { downstream: true, upstream: false };
    assert_eq!(reach("work", ClearRelatives::default()), ["make", "work", "clean"]);
    assert_eq!(reach("work", downstream), ["make", "work", "clean", "after"]);
    assert_eq!(reach("after", ClearRelatives::default()), ["after"]);
    assert_eq!(reach("make", ClearRelatives::default()), ["make", "clean"]);
    let upstream = ClearRelatives { downstream: false, upstream: true };
    assert_eq!(reach("after", upstream), ["make", "work", "clean", "after"]);
}

#[test]
fn a_mark_takes_a_running_task_from_its_worker() {
    let (world, row) = some_instance(S::Running);
    let marked = mark_instance(&row, S::Success, world.now).unwrap();
    assert_eq!((marked.state, marked.takes_back), (S::Success, true));
    let (world, row) = some_instance(S::Success);
    assert_eq!(mark_instance(&row, S::Success, world.now), None);
}

#[rstest]
#[case::runs(S::Running, false, Some(S::Failed))]
#[case::has_not_begun(S::None, false, Some(S::Skipped))]
#[case::is_over(S::Success, false, None)]
#[case::teardown(S::None, true, None)]
fn a_marked_run_stops_what_is_left_but_teardowns(
    #[case] state: S,
    #[case] is_teardown: bool,
    #[case] expected: Option<S>,
) {
    let (world, row) = some_instance(state);
    let marked = mark_run(DagRunState::Failed, &row, is_teardown, world.now);
    assert_eq!(marked.map(|marked| marked.state), expected);
    assert_eq!(run_may_end([(&row, is_teardown)]), !is_teardown);
}
