//! Mapped tasks and mapped groups.

use gust_model::{DagRunState, TaskInstanceState as S, record::TaskInstance};
use serde_json::{Value, json};

use crate::{
    build::{dag, empty, plain, value_of},
    world::{Act, TryOutcome, World},
};

fn success(_: &TaskInstance) -> Act {
    Act::End(TryOutcome::Success)
}

/// `get >> work (mapped over get) >> sum`, `get` leaving a value of this length.
fn map_and_reduce() -> Value {
    dag("map")
        .task("get", &["work"], plain())
        .mapped("work", &["sum"], value_of("get"), json!({}))
        .task("sum", &[], plain())
        .done()
}

fn pushing(length: u32) -> impl Fn(&TaskInstance) -> Act {
    move |row| if row.task_id == "get" { Act::Push(length) } else { Act::End(TryOutcome::Success) }
}

#[test]
fn a_mapped_task_becomes_as_many_instances_as_its_value_has_items() {
    let mut world = World::new(&map_and_reduce());
    world.play(|_| 0, pushing(3), true, 50);
    assert_eq!(world.run.state, DagRunState::Success);
    assert_eq!(world.rows.len(), 5);
    for index in 0..3 {
        assert_eq!(world.state_of("work", index), S::Success);
    }
    assert_eq!(world.tallies["work"].expanded_length, Some(3));
}

#[test]
fn the_unexpanded_instance_becomes_the_first_index() {
    let mut world = World::new(&map_and_reduce());
    world.advance();
    let (get, work) = (world.find("get", -1).id, world.find("work", -1).id);
    world.start(get);
    world.end(get, &Act::Push(2));
    world.advance();
    assert_eq!(world.find("work", 0).id, work);
    assert_eq!(world.find("work", 0).state, S::Scheduled);
    assert_eq!(world.find("work", 1).state, S::Scheduled);
}

#[test]
fn nothing_to_map_over_skips() {
    let mut world = World::new(&map_and_reduce());
    world.play(|_| 0, pushing(0), true, 50);
    assert_eq!(world.state_of("work", -1), S::Skipped);
    assert_eq!(world.state_of("sum", -1), S::Skipped);
    assert_eq!(world.run.state, DagRunState::Success);
}

#[test]
fn a_value_that_never_came_fails_what_is_mapped_over_it() {
    let mut world = World::new(&map_and_reduce());
    world.play(|_| 0, success, true, 50);
    assert_eq!(world.state_of("work", -1), S::UpstreamFailed);
    assert_eq!(world.run.state, DagRunState::Failed);
}

#[test]
fn a_failed_producer_fails_what_is_mapped_over_it_whatever_its_rule() {
    let serialized = dag("map")
        .task("get", &["work"], plain())
        .mapped("work", &[], value_of("get"), json!({ "trigger_rule": "all_done" }))
        .done();
    let mut world = World::new(&serialized);
    world.play(|_| 0, |_| Act::End(TryOutcome::Failed), true, 50);
    assert_eq!(world.state_of("work", -1), S::UpstreamFailed);
}

#[test]
fn a_mapped_producer_counts_its_values() {
    let serialized = dag("map")
        .mapped("first", &["second"], json!([1, 2, 3]), json!({}))
        .mapped("second", &[], value_of("first"), json!({ "trigger_rule": "all_done" }))
        .done();
    let mut world = World::new(&serialized);
    let act = |row: &TaskInstance| match (row.task_id.as_str(), row.map_index.0) {
        ("first", 1) => Act::End(TryOutcome::Skipped),
        _ => Act::End(TryOutcome::Success),
    };
    world.play(|_| 0, act, true, 50);
    assert_eq!(world.tallies["second"].expanded_length, Some(2), "one of three left no value");
}

#[test]
fn a_mapped_group_waits_for_its_own_index() {
    let serialized = dag("group")
        .group("g", json!(["a", "b", "c"]))
        .task("first", &["second"], plain())
        .task("second", &["last"], plain())
        .end_group()
        .task("last", &[], json!({ "trigger_rule": "all_done" }))
        .done();
    let mut world = World::new(&serialized);
    world.advance();
    let failing = world.find("first", 1).id;
    let good = world.find("first", 2).id;
    for id in [failing, good] {
        world.start(id);
    }
    world.end(failing, &Act::End(TryOutcome::Failed));
    world.end(good, &Act::End(TryOutcome::Success));
    world.advance();
    assert_eq!(world.state_of("second", 0), S::None, "its index still runs");
    assert_eq!(world.state_of("second", 1), S::UpstreamFailed);
    assert_eq!(world.state_of("second", 2), S::Scheduled);
    assert_eq!(world.state_of("last", -1), S::None);
    world.play(|_| 0, success, true, 50);
    assert_eq!(world.state_of("last", -1), S::Success);
}

#[test]
fn a_group_mapped_over_a_value_expands_task_by_task() {
    let serialized = dag("group")
        .task("get", &["first"], plain())
        .group("g", value_of("get"))
        .task("first", &["second"], plain())
        .task("second", &["last"], plain())
        .end_group()
        .task("last", &[], plain())
        .done();
    let mut world = World::new(&serialized);
    world.play(|_| 0, pushing(2), true, 50);
    assert_eq!(world.run.state, DagRunState::Success);
    assert_eq!(
        world.states().keys().collect::<Vec<_>>(),
        ["first[0]", "first[1]", "get", "last", "second[0]", "second[1]"]
    );

    let mut world = World::new(&serialized);
    world.play(|_| 0, pushing(0), true, 50);
    let skipped = ["first", "second", "last"].map(|task| world.state_of(task, -1));
    assert_eq!(skipped, [S::Skipped; 3], "a group over nothing is skipped");
}

#[test]
fn a_fast_rule_in_an_unexpanded_group_is_not_given_up_for_want_of_instances() {
    let serialized = dag("group")
        .task("get", &["first"], plain())
        .group("g", value_of("get"))
        .task("first", &["second"], plain())
        .task("second", &[], json!({ "trigger_rule": "one_success" }))
        .done();
    let mut world = World::new(&serialized);
    let act = |row: &TaskInstance| match row.task_id.as_str() {
        "get" => Act::Push(2),
        "first" if row.map_index.0 == 0 => Act::End(TryOutcome::Failed),
        _ => Act::End(TryOutcome::Success),
    };
    world.play(|_| 0, act, true, 50);
    assert_eq!(world.state_of("second", 0), S::UpstreamFailed);
    assert_eq!(world.state_of("second", 1), S::Success);
}

#[test]
fn a_value_of_another_length_after_a_clear_removes_and_adds_instances() {
    let serialized = map_and_reduce();
    for (later, expected) in [(1, vec![S::Success, S::Removed, S::Removed]), (4, vec![S::Success; 4])] {
        let mut world = World::new(&serialized);
        world.play(|_| 0, pushing(3), true, 50);
        world.clear_all();
        world.play(|_| 0, pushing(later), true, 50);
        let states: Vec<_> =
            (0..i32::try_from(expected.len()).unwrap()).map(|index| world.state_of("work", index)).collect();
        assert_eq!(states, expected, "three, then {later}");
        assert_eq!(world.tallies["work"].expanded_length, Some(later));
        assert_eq!(world.state_of("sum", -1), S::Success);
    }
}

#[test]
fn literal_mappings_are_expanded_when_the_run_begins() {
    let serialized =
        dag("map").mapped("work", &["end"], json!([1, 2]), json!({})).task("end", &[], empty()).done();
    let mut world = World::new(&serialized);
    let plan = world.advance();
    assert_eq!(plan.inserts.len(), 3);
    assert_eq!(world.in_state(S::Scheduled).len(), 2);
}
