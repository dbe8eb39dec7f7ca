//! Ends of tries, retries and reschedules.

use chrono::TimeDelta;
use gust_model::{DagRunState, TaskInstanceState as S, dag::Dag, record::TaskInstance};
use gust_planner::{CallbackKind, TryOutcome, end_of_try, should_retry};
use rstest::rstest;
use serde_json::json;

use crate::{
    build::dag,
    world::{Act, World, midnight},
};

fn world_with(more: serde_json::Value) -> World {
    let mut world = World::new(&dag("d").task("t", &[], more).done());
    world.advance();
    world
}

#[test]
fn a_failed_try_is_tried_again_after_its_delay() {
    let mut world = world_with(json!({ "retries": 1, "retry_delay": 30.0 }));
    let id = world.find("t", -1).id;
    world.start(id);
    world.end(id, &Act::End(TryOutcome::Failed));
    let ended = world.now;
    let plan = world.advance();
    assert_eq!(world.state_of("t", -1), S::UpForRetry);
    assert_eq!(plan.next_due_at, Some(ended + TimeDelta::seconds(30)));
    world.now = ended + TimeDelta::seconds(29);
    world.advance();
    assert_eq!(world.state_of("t", -1), S::UpForRetry, "not yet");
    world.now = ended + TimeDelta::seconds(30);
    let plan = world.advance();
    assert!(plan.scheduled_any);
    assert_eq!((world.state_of("t", -1), world.find("t", -1).try_number), (S::Scheduled, 2));
    world.start(id);
    world.end(id, &Act::End(TryOutcome::Failed));
    world.advance();
    assert_eq!(world.state_of("t", -1), S::Failed);
    assert_eq!(world.run.state, DagRunState::Failed);
}

#[test]
fn a_retry_without_a_moment_gets_one_when_it_is_accounted() {
    let mut world = world_with(json!({ "retries": 1, "retry_delay": 30.0 }));
    let id = world.find("t", -1).id;
    world.start(id);
    world.end(id, &Act::End(TryOutcome::Failed));
    world.rows.get_mut(&id).unwrap().due_at = None;
    world.advance();
    assert_eq!(world.find("t", -1).due_at, Some(world.now + TimeDelta::seconds(30)));
}

#[test]
fn a_reschedule_does_not_count_as_a_try() {
    let mut world = world_with(json!({ "_is_sensor": true, "reschedule": true }));
    let id = world.find("t", -1).id;
    world.start(id);
    let again = world.now + TimeDelta::seconds(10);
    world.end(id, &Act::End(TryOutcome::Reschedule(again)));
    world.advance();
    assert_eq!(world.state_of("t", -1), S::UpForReschedule);
    world.now = again;
    world.advance();
    assert_eq!((world.state_of("t", -1), world.find("t", -1).try_number), (S::Scheduled, 1));
}

fn running(try_number: i32, max_tries: i32) -> TaskInstance {
    let mut world = world_with(json!({ "retries": 2 }));
    let mut row = world.rows.pop_first().unwrap().1;
    row.state = S::Running;
    row.try_number = try_number;
    row.max_tries = max_tries;
    row
}

#[rstest]
#[case::first(1, 2, 2, true)]
#[case::last_but_one(2, 2, 2, true)]
#[case::last(3, 2, 2, false)]
#[case::no_retries(1, 2, 0, false)]
#[case::after_clear(3, 5, 2, true)]
fn retries_are_counted_as_in_airflow(
    #[case] try_number: i32,
    #[case] max_tries: i32,
    #[case] retries: i32,
    #[case] expected: bool,
) {
    assert_eq!(should_retry(&running(try_number, max_tries), Some(retries)), expected);
}

#[test]
fn a_try_cleared_while_it_ran_runs_again_whatever_it_came_to() {
    let mut row = running(9, 2);
    row.state = S::Restarting;
    for outcome in
        [TryOutcome::Success, TryOutcome::FailedForGood, TryOutcome::Died { cause: "killed".into() }]
    {
        let ended = end_of_try(&row, &outcome, None, None, midnight());
        assert_eq!(ended.state, S::UpForRetry);
        assert_eq!(ended.history, None, "the clear kept it");
    }
}

#[test]
fn a_try_that_died_without_a_word_asks_for_its_callbacks() {
    let serialized = dag("d")
        .task("t", &[], json!({ "retries": 2, "has_on_failure_callback": true, "email": ["a@b.c"], "email_on_retry": true }))
        .done();
    let dag = Dag::from_serialized(&serialized).unwrap();
    let died = TryOutcome::Died { cause: "out of memory".into() };
    let ended = end_of_try(&running(1, 2), &died, Some(&dag), None, midnight());
    assert_eq!(
        (ended.state, ended.callback),
        (S::UpForRetry, Some((CallbackKind::Retry, "out of memory".into())))
    );
    assert_eq!(ended.history.unwrap().try_number, 1);
    let ended = end_of_try(&running(3, 2), &died, Some(&dag), None, midnight());
    assert_eq!(
        (ended.state, ended.callback),
        (S::Failed, Some((CallbackKind::Failure, "out of memory".into())))
    );
    let ended = end_of_try(&running(3, 2), &TryOutcome::Failed, Some(&dag), None, midnight());
    assert_eq!(ended.callback, None, "its own process ran them");
}

#[test]
fn a_retry_policys_delay_comes_before_the_tasks_own() {
    let serialized = dag("d").task("t", &[], json!({ "retries": 2, "retry_delay": 300.0 })).done();
    let dag = Dag::from_serialized(&serialized).unwrap();
    let outcome = TryOutcome::Retry { delay_s: Some(2.5), reason: Some("busy".into()) };
    let ended = end_of_try(&running(1, 2), &outcome, Some(&dag), None, midnight());
    assert_eq!(ended.due_at, Some(midnight() + TimeDelta::milliseconds(2500)));
    assert_eq!((ended.retry_delay_override, ended.retry_reason.as_deref()), (Some(2.5), Some("busy")));
}
