//! How runs end, and what stops them: chains that do nothing, setups and teardowns, time limits, deadlock, fail-fast.

use chrono::TimeDelta;
use gust_model::{DagRunState, TaskInstanceState as S, record::TaskInstance};
use gust_planner::RunEnd;
use serde_json::{Value, json};

use crate::{
    build::{dag, empty, plain},
    world::{Act, TryOutcome, World},
};

fn act_by<'a>(ends: &'a [(&'a str, TryOutcome)]) -> impl Fn(&TaskInstance) -> Act + 'a {
    move |row| {
        let found = ends.iter().find(|(task, _)| row.task_id == **task);
        Act::End(found.map_or(TryOutcome::Success, |(_, outcome)| outcome.clone()))
    }
}

#[test]
fn a_chain_of_tasks_that_do_nothing_ends_in_one_pass() {
    let names: Vec<String> = (0..1000).map(|at| format!("t{at:04}")).collect();
    let mut build = dag("chain");
    for (at, name) in names.iter().enumerate() {
        let next: Vec<&str> = names.get(at + 1).map(String::as_str).into_iter().collect();
        build = build.task(name, &next, empty());
    }
    let mut world = World::new(&build.done());
    let plan = world.advance();
    assert_eq!(plan.ended, Some(RunEnd::Success));
    assert_eq!(world.run.state, DagRunState::Success);
    assert!(world.rows.values().all(|row| row.state == S::Success && row.try_number == 1));
    assert!(!plan.scheduled_any);
}

#[test]
fn a_task_that_does_nothing_but_has_outlets_or_callbacks_is_run() {
    let outlet =
        json!([{ "__type": "asset", "__var": { "name": "a", "uri": "a", "group": "asset", "extra": {} } }]);
    let serialized = dag("empty")
        .task("outlets", &[], json!({ "_is_empty": true, "outlets": outlet }))
        .task("inlets", &[], json!({ "_is_empty": true, "inlets": outlet }))
        .task("on_success", &[], json!({ "_is_empty": true, "has_on_success_callback": true }))
        .task("on_execute", &[], json!({ "_is_empty": true, "has_on_execute_callback": true }))
        .task("on_failure", &[], json!({ "_is_empty": true, "has_on_failure_callback": true }))
        .done();
    let mut world = World::new(&serialized);
    let plan = world.advance();
    assert!(plan.scheduled_any);
    assert_eq!(world.in_state(S::Scheduled).len(), 4);
    assert_eq!(world.state_of("on_failure", -1), S::Success, "it cannot fail");
}

#[test]
fn a_task_that_starts_with_a_trigger_is_deferred() {
    let trigger = json!({
        "trigger_cls": "a.Trigger", "trigger_kwargs": { "moment": 1 }, "next_method": "resume",
        "next_kwargs": null, "timeout": 60.0,
    });
    let serialized = dag("trigger")
        .task(
            "wait",
            &[],
            json!({ "start_from_trigger": true, "start_trigger_args": trigger, "execution_timeout": 90.0 }),
        )
        .done();
    let mut world = World::new(&serialized);
    let plan = world.advance();
    assert_eq!(plan.triggers.len(), 1);
    assert_eq!(plan.triggers[0].classpath, "a.Trigger");
    let row = &plan.inserts[0];
    assert_eq!((row.state, row.try_number, row.trigger_id), (S::Deferred, 1, Some(plan.triggers[0].id)));
    assert_eq!(row.due_at, Some(world.now + TimeDelta::seconds(60)), "the shorter of its limits");
    assert_eq!(row.next_method.as_deref(), Some("resume"));
}

/// `make >> work >> clean`, `make` setting up and `clean` tearing down.
fn with_setup(fails_run: bool) -> Value {
    dag("setup")
        .task("make", &["work", "clean"], json!({ "is_setup": true }))
        .task("work", &["more"], plain())
        .task("more", &["clean"], plain())
        .task("clean", &[], json!({
            "is_teardown": true, "trigger_rule": "all_done_setup_success", "on_failure_fail_dagrun": fails_run,
        }))
        .done()
}

#[test]
fn a_teardown_runs_after_failed_work_and_does_not_hide_it() {
    let mut world = World::new(&with_setup(false));
    world.play(|_| 0, act_by(&[("work", TryOutcome::Failed)]), true, 50);
    assert_eq!(world.state_of("more", -1), S::UpstreamFailed);
    assert_eq!(world.state_of("clean", -1), S::Success);
    assert_eq!(world.run.state, DagRunState::Failed);
}

#[test]
fn a_failed_setup_leaves_nothing_to_tear_down() {
    let mut world = World::new(&with_setup(false));
    world.play(|_| 0, act_by(&[("make", TryOutcome::Failed)]), true, 50);
    assert_eq!(world.state_of("clean", -1), S::UpstreamFailed);
    assert_eq!(world.run.state, DagRunState::Failed);
}

#[test]
fn a_failed_teardown_fails_the_run_only_if_it_says_so() {
    for (fails_run, expected) in [(false, DagRunState::Success), (true, DagRunState::Failed)] {
        let mut world = World::new(&with_setup(fails_run));
        world.play(|_| 0, act_by(&[("clean", TryOutcome::Failed)]), true, 50);
        assert_eq!(world.run.state, expected);
    }
}

#[test]
fn work_waits_for_a_setup_that_is_not_directly_before_it() {
    let serialized = dag("setup")
        .task("make", &["between", "clean"], json!({ "is_setup": true }))
        .task("between", &["work"], json!({ "trigger_rule": "always" }))
        .task("work", &["clean"], json!({ "trigger_rule": "all_done" }))
        .task("clean", &[], json!({ "is_teardown": true, "trigger_rule": "all_done_setup_success" }))
        .done();
    let mut world = World::new(&serialized);
    world.advance();
    let between = world.find("between", -1).id;
    world.start(between);
    world.end(between, &Act::End(TryOutcome::Success));
    world.advance();
    assert_eq!(world.state_of("work", -1), S::None, "its setup still runs");
    let make = world.find("make", -1).id;
    world.start(make);
    world.end(make, &Act::End(TryOutcome::Skipped));
    world.advance();
    assert_eq!(world.state_of("work", -1), S::Skipped, "a skipped setup skips, though the rule is all_done");
}

#[test]
fn a_run_that_takes_too_long_fails_and_skips_what_is_left() {
    let serialized = dag("slow")
        .with("dagrun_timeout", 60.0)
        .with("has_on_failure_callback", true)
        .task("running", &["after"], plain())
        .task("after", &[], plain())
        .done();
    let mut world = World::new(&serialized);
    let plan = world.advance();
    assert_eq!(plan.run.due_at, Some(world.now + TimeDelta::seconds(60)));
    let running = world.find("running", -1).id;
    world.start(running);
    let epoch = world.find("running", -1).epoch;
    world.now += TimeDelta::seconds(61);
    let plan = world.advance();
    assert_eq!(plan.ended, Some(RunEnd::TimedOut));
    assert_eq!(plan.callback.unwrap().relevant.unwrap().task_id, "running");
    assert!(plan.freed_slots);
    assert_eq!(world.run.state, DagRunState::Failed);
    assert_eq!(world.state_of("running", -1), S::Skipped);
    assert_eq!(world.state_of("after", -1), S::Skipped);
    assert!(world.find("running", -1).epoch > epoch, "its worker has lost it");
}

#[test]
fn the_first_failure_stops_a_fail_fast_dag_but_not_its_teardowns() {
    let serialized = dag("fast")
        .with("fail_fast", true)
        .task("bad", &[], plain())
        .task("running", &[], plain())
        .task("waiting", &[], json!({ "trigger_rule": "all_done" }))
        .task("make", &["waiting", "clean"], json!({ "is_setup": true }))
        .task("clean", &[], json!({ "is_teardown": true, "trigger_rule": "all_done_setup_success" }))
        .done();
    let mut world = World::new(&serialized);
    world.advance();
    for task in ["bad", "running", "make"] {
        let id = world.find(task, -1).id;
        world.start(id);
    }
    let make = world.find("make", -1).id;
    world.end(make, &Act::End(TryOutcome::Success));
    let bad = world.find("bad", -1).id;
    world.end(bad, &Act::End(TryOutcome::Failed));
    world.advance();
    assert_eq!(world.state_of("running", -1), S::Failed);
    assert_eq!(world.state_of("waiting", -1), S::Skipped);
    assert_eq!(world.state_of("clean", -1), S::Scheduled);
    world.play(|_| 0, act_by(&[]), true, 10);
    assert_eq!(world.run.state, DagRunState::Failed);
}

#[test]
fn a_task_whose_upstream_never_is_there_is_a_deadlock() {
    let start = 2_000_000_000.0;
    let serialized = dag("dead")
        .with("has_on_failure_callback", true)
        .task("later", &["stuck"], json!({ "start_date": start }))
        .task("done", &["stuck"], empty())
        .task("stuck", &[], plain())
        .done();
    let mut world = World::new(&serialized);
    world.run.logical_date = Some(world.now);
    let plan = world.advance();
    assert_eq!(world.rows.len(), 2, "a task that begins later is not in the run");
    assert_eq!(plan.ended, Some(RunEnd::AllTasksDeadlocked));
    assert_eq!(plan.callback.unwrap().relevant.unwrap().task_id, "stuck");
    assert_eq!(world.run.state, DagRunState::Failed);
}

#[test]
fn a_dags_callbacks_get_the_task_instance_that_ended_last() {
    let serialized = dag("calls")
        .with("has_on_failure_callback", true)
        .with("has_on_success_callback", true)
        .with("max_consecutive_failed_dag_runs", 2)
        .task("a", &[], plain())
        .task("b", &[], plain())
        .done();
    for (ends, end) in [
        (vec![], RunEnd::Success),
        (vec![("a", TryOutcome::Failed), ("b", TryOutcome::Failed)], RunEnd::TaskFailure),
    ] {
        let mut world = World::new(&serialized);
        world.play(|_| 0, act_by(&ends), false, 10);
        let plan = world.last_plan.clone().unwrap();
        let callback = plan.callback.unwrap();
        let latest = world.rows.values().max_by_key(|row| row.end_date).unwrap();
        assert_eq!((callback.end, callback.relevant.unwrap().id), (end, latest.id));
        assert_eq!(plan.checks_consecutive_failures, end == RunEnd::TaskFailure);
    }
}

#[test]
fn a_skip_waits_a_moment_for_failures_that_are_under_way() {
    let serialized = dag("grace")
        .task("slow", &["join"], plain())
        .task("quick", &["join"], plain())
        .task("join", &[], plain())
        .done();
    let mut world = World::new(&serialized);
    world.advance();
    for task in ["slow", "quick"] {
        let id = world.find(task, -1).id;
        world.start(id);
    }
    let quick = world.find("quick", -1).id;
    world.end(quick, &Act::End(TryOutcome::Skipped));
    let plan = world.advance();
    assert_eq!(world.state_of("join", -1), S::None);
    let mut failing = world.clone();
    let slow = failing.find("slow", -1).id;
    failing.end(slow, &Act::End(TryOutcome::Failed));
    failing.advance();
    assert_eq!(failing.state_of("join", -1), S::UpstreamFailed, "the failure came in time");

    assert_eq!(plan.next_due_at, Some(world.now + TimeDelta::seconds(1)));
    world.now = plan.next_due_at.unwrap();
    world.advance();
    assert_eq!(world.state_of("join", -1), S::Skipped, "nothing failed in time");
}

#[test]
fn what_ends_after_its_run_is_added_up_and_starts_nothing() {
    let serialized = dag("late").task("a", &["b"], plain()).task("b", &[], plain()).done();
    let mut world = World::new(&serialized);
    world.advance();
    let a = world.find("a", -1).id;
    world.start(a);
    world.run.state = DagRunState::Failed;
    world.end(a, &Act::End(TryOutcome::Success));
    let plan = world.advance();
    assert_eq!(world.run.state, DagRunState::Failed);
    assert_eq!(plan.ended, None);
    assert_eq!(world.state_of("b", -1), S::None);
}
