//! What a pass reads follows what changed, not the size of the run.

use gust_model::{DagRunState, TaskInstanceState as S};
use serde_json::json;

use crate::{
    build::{dag, plain, value_of},
    world::{Act, TryOutcome, World},
};

/// The facts read for one end in a run of `width` tasks, all before one.
fn facts_for_one_end_of(width: usize) -> usize {
    let mut build = dag("wide");
    for at in 0..width {
        build = build.task(&format!("t{at}"), &["join"], plain());
    }
    let mut world = World::new(&build.task("join", &[], plain()).done());
    world.advance();
    let first = world.find("t0", -1).id;
    world.start(first);
    world.end(first, &Act::End(TryOutcome::Success));
    world.facts_read = 0;
    let plan = world.advance();
    assert_eq!(plan.changes.len(), 1);
    world.facts_read
}

#[test]
fn an_end_costs_the_same_in_a_wide_run() {
    assert_eq!(facts_for_one_end_of(10), facts_for_one_end_of(1000));
    assert!(facts_for_one_end_of(1000) <= 4);
}

#[test]
fn an_end_of_a_mapped_instance_costs_the_same_among_many() {
    let facts = |length: u32| {
        let serialized = dag("mapped")
            .task("get", &["work"], plain())
            .mapped("work", &["again"], value_of("get"), json!({}))
            .mapped("again", &["sum"], value_of("work"), json!({}))
            .task("sum", &[], plain())
            .done();
        let mut world = World::new(&serialized);
        world.advance();
        let get = world.find("get", -1).id;
        world.start(get);
        world.end(get, &Act::Push(length));
        world.advance();
        let first = world.find("work", 0).id;
        world.start(first);
        world.end(first, &Act::End(TryOutcome::Success));
        world.facts_read = 0;
        world.advance();
        world.facts_read
    };
    assert_eq!(facts(3), facts(500));
}

#[test]
fn an_end_in_a_mapped_group_looks_at_its_own_index() {
    let serialized = dag("group")
        .group("g", json!((0..200).collect::<Vec<_>>()))
        .task("first", &["second"], plain())
        .task("second", &[], plain())
        .done();
    let mut world = World::new(&serialized);
    world.advance();
    let one = world.find("first", 77).id;
    world.start(one);
    world.end(one, &Act::End(TryOutcome::Success));
    world.facts_read = 0;
    world.advance();
    assert_eq!(world.state_of("second", 77), S::Scheduled);
    assert!(world.facts_read <= 8, "{} facts read", world.facts_read);
    assert_eq!(world.run.state, DagRunState::Running);
}

#[test]
fn ten_thousand_mapped_instances_are_planned_in_one_pass() {
    let serialized = dag("mapped")
        .task("get", &["work"], plain())
        .mapped("work", &["sum"], value_of("get"), json!({}))
        .task("sum", &[], plain())
        .done();
    let mut world = World::new(&serialized);
    world.advance();
    let get = world.find("get", -1).id;
    world.start(get);
    world.end(get, &Act::Push(10_000));
    let plan = world.plan();
    assert_eq!((plan.inserts.len(), plan.changes.len()), (9_999, 2));
    assert!(plan.inserts.iter().all(|row| row.state == S::Scheduled));
    assert_eq!(plan.tallies.len(), 3);
}

#[test]
fn a_dag_of_ten_thousand_tasks_begins_in_one_pass() {
    let names: Vec<String> = (0..10_000).map(|at| format!("t{at}")).collect();
    let mut build = dag("large");
    for (at, name) in names.iter().enumerate() {
        let next: Vec<&str> = names.get(at + 100).map(String::as_str).into_iter().collect();
        build = build.task(name, &next, plain());
    }
    let mut world = World::new(&build.done());
    let plan = world.plan();
    assert_eq!(plan.inserts.len(), 10_000);
    assert_eq!(plan.inserts.iter().filter(|row| row.state == S::Scheduled).count(), 100);
}
