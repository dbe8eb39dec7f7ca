//! Tasks that wait for the run before.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use gust_model::{
    BackfillId, DagRunState, TaskInstanceState as S,
    record::{TaskTally, UpstreamTally},
};
use rstest::rstest;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    build::{dag, plain},
    world::{Act, TryOutcome, World},
};

/// `t >> after`, with these values for `t`, in a run with a run before it, in which they came to these states.
fn world(more: Value, before: &[(&str, S)]) -> World {
    let mut world = World::new(&dag("past").task("t", &["after"], more).task("after", &[], plain()).done());
    world.run.logical_date = Some(world.now - TimeDelta::days(1));
    let mut run = world.run.clone();
    run.logical_date = run.logical_date.map(|date| date - TimeDelta::days(1));
    run.is_expanded = true;
    world.previous.run = Some(run);
    world.previous.tallies = before
        .iter()
        .map(|(task, state)| TaskTally {
            dag_run_id: world.run.id,
            task_id: (*task).into(),
            expanded_length: None,
            own: BTreeMap::from([(*state, 1)]),
            upstream: UpstreamTally::default(),
        })
        .collect();
    world
}

fn state_of_t(mut world: World) -> S {
    world.advance();
    assert_eq!(world.run.state, DagRunState::Running, "waiting for the past is no deadlock");
    world.state_of("t", -1)
}

#[rstest]
#[case::success(S::Success, S::Scheduled)]
#[case::skipped(S::Skipped, S::Scheduled)]
#[case::failed(S::Failed, S::None)]
#[case::running(S::Running, S::None)]
#[case::undecided(S::None, S::None)]
#[case::removed(S::Removed, S::None)]
fn depends_on_past_asks_for_success_or_skip_in_the_run_before(#[case] before: S, #[case] expected: S) {
    assert_eq!(state_of_t(world(json!({ "depends_on_past": true }), &[("t", before)])), expected);
}

#[rstest]
#[case::success(S::Success, S::Scheduled)]
#[case::failed(S::Failed, S::None)]
fn wait_for_downstream_asks_for_the_tasks_after_it_too(#[case] after: S, #[case] expected: S) {
    let more = json!({ "depends_on_past": true, "wait_for_downstream": true });
    assert_eq!(state_of_t(world(more, &[("t", S::Success), ("after", after)])), expected);
}

#[test]
fn a_task_new_to_the_dag_waits_unless_it_may_ignore_its_first_run() {
    assert_eq!(state_of_t(world(json!({ "depends_on_past": true }), &[])), S::None);
    let ignoring = json!({ "depends_on_past": true, "ignore_first_depends_on_past": true });
    assert_eq!(state_of_t(world(ignoring.clone(), &[])), S::Scheduled);
    let mut known = world(ignoring, &[]);
    known.previous.tasks_with_history.insert("t".into());
    assert_eq!(state_of_t(known), S::None, "an earlier run had it");
}

#[test]
fn a_first_run_has_no_past() {
    let mut first = world(json!({ "depends_on_past": true }), &[]);
    first.previous.run = None;
    assert_eq!(state_of_t(first), S::Scheduled);

    let mut first_of_backfill = world(json!({ "depends_on_past": true }), &[("t", S::Failed)]);
    first_of_backfill.run.backfill_id = Some(BackfillId(Uuid::from_u128(9)));
    first_of_backfill.previous.is_first_of_backfill = true;
    assert_eq!(state_of_t(first_of_backfill), S::Scheduled);

    let mut by_hand = world(json!({ "depends_on_past": true }), &[("t", S::Failed)]);
    by_hand.run.logical_date = None;
    assert_eq!(state_of_t(by_hand), S::Scheduled, "a run that stands for no date has none before it");
}

#[test]
fn a_run_before_that_has_not_begun_is_waited_for() {
    let mut world = world(json!({ "depends_on_past": true, "ignore_first_depends_on_past": true }), &[]);
    world.previous.run.as_mut().unwrap().is_expanded = false;
    assert_eq!(state_of_t(world), S::None);
}

#[test]
fn an_end_wakes_who_waits_in_the_next_run() {
    let more = json!({ "depends_on_past": true, "wait_for_downstream": true });
    let mut world = world(more, &[("t", S::Success), ("after", S::Success)]);
    world.advance();
    for task in ["t", "after"] {
        let id = world.find(task, -1).id;
        world.start(id);
        world.end(id, &Act::End(TryOutcome::Success));
        let plan = world.advance();
        assert_eq!(plan.wakes_in_next_run, [gust_model::TaskId::from("t")], "{task} ended");
    }
}

#[test]
fn a_woken_instance_is_looked_at_alone() {
    let mut world = world(json!({ "depends_on_past": true }), &[("t", S::Running)]);
    world.advance();
    world.previous.tallies[0].own = BTreeMap::from([(S::Success, 1)]);
    let id = world.find("t", -1).id;
    world.rows.get_mut(&id).unwrap().is_dirty = true;
    world.advance();
    assert_eq!(world.state_of("t", -1), S::Scheduled);
}
