use std::time::Duration;

use gust_model::{
    DagRunState, TaskInstanceState as S,
    record::{Component, ComponentKind},
};
use serde_json::json;

use crate::house::{House, LEASE, by_hand, dag, hourly};

#[tokio::test]
async fn a_run_goes_from_trigger_to_end_through_claims_alone() {
    let house = House::new().await;
    house
        .put_file("x.py", vec![dag("d", &by_hand(), &[("a", &["b"], json!({})), ("b", &[], json!({}))])], &[])
        .await;
    let run = house.trigger("d", "r").await;
    for expected in ["a", "b"] {
        house.settle().await;
        let messages = house.received().await;
        assert_eq!(messages.len(), 1);
        let claimed = house.claim(messages[0]).await.unwrap();
        assert_eq!(claimed.task_id, expected);
        assert_eq!(claimed.try_number, 1);
        assert!(house.claim(messages[0]).await.is_none(), "a message claims once");
        assert!(house.end(&claimed, S::Success).await);
    }
    house.settle().await;
    assert_eq!(house.run_state(run).await, DagRunState::Success);
}

#[tokio::test]
async fn tasks_that_do_nothing_end_in_the_scheduler_in_one_pass() {
    let house = House::new().await;
    let empty = || json!({ "_is_empty": true, "task_type": "EmptyOperator" });
    let tasks = [("a", &["b"][..], empty()), ("b", &["c"][..], empty()), ("c", &[][..], empty())];
    house.put_file("x.py", vec![dag("d", &by_hand(), &tasks)], &[]).await;
    let run = house.trigger("d", "r").await;
    house.scheduler.pass().await.unwrap();
    assert_eq!(house.run_state(run).await, DagRunState::Success);
    assert_eq!(house.received().await, []);
}

#[tokio::test]
async fn a_due_run_is_made_once_however_many_schedulers_pass() {
    let house = House::new().await;
    house.put_file("x.py", vec![dag("d", &hourly(), &[("a", &[], json!({}))])], &[]).await;
    house.settle().await;
    let before = house.runs("d").await.len();
    house.clock.advance(Duration::from_secs(3_700));
    let (one, other) = tokio::join!(house.scheduler.pass(), house.scheduler.pass());
    assert_eq!(one.unwrap().created + other.unwrap().created, 1);
    house.settle().await;
    let runs = house.runs("d").await;
    assert_eq!(runs.len(), before + 1);
    assert!(runs[0].0.as_str().starts_with("scheduled__2026-03-01T13:00:00"), "{:?}", runs[0]);
}

#[tokio::test]
async fn an_unclaimed_message_is_sent_again_and_ever_more_rarely() {
    let house = House::new().await;
    house.put_file("x.py", vec![dag("d", &by_hand(), &[("a", &[], json!({}))])], &[]).await;
    house.trigger("d", "r").await;
    house.settle().await;
    let first = house.received().await;
    assert_eq!(first.len(), 1);
    let mut waits = Vec::new();
    for _ in 0..3 {
        let mut waited = 0;
        loop {
            house.clock.advance(Duration::from_secs(10));
            waited += 10;
            house.scheduler.pass().await.unwrap();
            let again = house.received().await;
            if !again.is_empty() {
                assert_eq!(again, first, "the same claim is offered again");
                break;
            }
        }
        waits.push(waited);
    }
    assert_eq!(waits, [30, 60, 120]);
    assert!(house.claim(first[0]).await.is_some(), "a late message still claims");
}

#[tokio::test]
async fn a_silent_workers_try_is_ended_and_its_log_closed_and_it_can_write_no_more() {
    let house = House::new().await;
    let task = json!({ "retries": 1, "has_on_retry_callback": true });
    house.put_file("x.py", vec![dag("d", &by_hand(), &[("a", &[], task)])], &[]).await;
    let run = house.trigger("d", "r").await;
    house.settle().await;
    let message = house.received().await[0];
    let silent = house.claim(message).await.unwrap();
    house.clock.advance(LEASE + Duration::from_secs(10));
    let pass = house.scheduler.pass().await.unwrap();
    assert_eq!(pass.reaped, 1);
    assert_eq!(house.states(run).await["a"], S::UpForRetry);
    assert!(!house.end(&silent, S::Success).await, "the zombie's word counts no more");
    let logs = house.objects().await;
    assert_eq!(logs.len(), 1);
    assert!(logs[0].ends_with("-00000000-end.jsonl.zst"), "{}", logs[0]);
    let callbacks = house.read().await.callbacks_to_run(10).await.unwrap();
    assert_eq!(callbacks.len(), 1);
    let request = &callbacks[0].request;
    assert_eq!(
        request["ti"]["id"],
        json!(silent.id),
        "the SDK cannot run a callback without its try: {request}"
    );
    assert_eq!((&request["ti"]["try_number"], &request["ti"]["map_index"]), (&json!(1), &json!(-1)));
    assert_eq!(house.read().await.tries(silent.id).await.unwrap().len(), 1, "the dead try is kept");

    house.clock.advance(Duration::from_secs(301));
    house.settle().await;
    let messages = house.received().await;
    let retry =
        messages.iter().find(|message| message.id == silent.id.0 && message.epoch > silent.epoch).unwrap();
    let second = house.claim(*retry).await.unwrap();
    assert_eq!(second.try_number, 2);
    assert!(house.end(&second, S::Success).await);
    house.settle().await;
    assert_eq!(house.run_state(run).await, DagRunState::Success);
}

#[tokio::test]
async fn a_new_process_takes_over_at_once_what_the_last_one_ran_and_queued() {
    let house = House::new().await;
    let task = || json!({ "retries": 1, "retry_delay": 0.0 });
    house.put_file("x.py", vec![dag("d", &by_hand(), &[("a", &[], task()), ("b", &[], task())])], &[]).await;
    let run = house.trigger("d", "r").await;
    house.settle().await;
    let messages = house.received().await;
    house.claim(messages[0]).await.unwrap();
    house.scheduler.take_over().await.unwrap();
    let again = house.received().await;
    assert_eq!(again, [messages[1]], "what was queued is offered again at once");
    assert_eq!(house.states(run).await.values().filter(|&&state| state == S::UpForRetry).count(), 1);
}

#[tokio::test]
async fn parallelism_holds_over_two_schedulers_at_once() {
    let house = House::new().await;
    let names: Vec<String> = (0..12).map(|i| format!("t{i}")).collect();
    let tasks: Vec<_> = names.iter().map(|name| (name.as_str(), &[][..], json!({}))).collect();
    house.put_file("x.py", vec![dag("d", &by_hand(), &tasks)], &[]).await;
    house.trigger("d", "r").await;
    let (one, other) = tokio::join!(house.scheduler.pass(), house.scheduler.pass());
    assert_eq!(one.unwrap().admitted + other.unwrap().admitted, 4);
    house.settle().await;
    let messages = house.received().await;
    assert_eq!(messages.len(), 4);
    let claimed = house.claim(messages[0]).await.unwrap();
    assert!(house.end(&claimed, S::Success).await);
    house.settle().await;
    assert_eq!(house.received().await.len(), 1, "a freed slot is given to the next");
}

#[tokio::test]
async fn a_paused_dag_starts_nothing() {
    let house = House::new().await;
    house.put_file("x.py", vec![dag("d", &by_hand(), &[("a", &[], json!({}))])], &[]).await;
    let mut tx = house.write().await;
    assert!(tx.set_dag_paused(&"d".into(), true).await.unwrap());
    tx.commit().await.unwrap();
    let run = house.trigger("d", "r").await;
    house.settle().await;
    assert_eq!(house.run_state(run).await, DagRunState::Queued);
    let mut tx = house.write().await;
    tx.set_dag_paused(&"d".into(), false).await.unwrap();
    tx.commit().await.unwrap();
    house.settle().await;
    assert_eq!(house.run_state(run).await, DagRunState::Running);
}

#[tokio::test]
async fn a_dag_that_cannot_be_read_any_more_stops_no_other() {
    let house = House::new().await;
    let hourly_dag = |name: &str| dag(name, &hourly(), &[("a", &[], json!({}))]);
    house.put_file("bad.py", vec![hourly_dag("bad")], &[]).await;
    house.put_file("good.py", vec![hourly_dag("good")], &[]).await;
    let stuck = house.trigger("bad", "r").await;
    house.settle().await;
    // As after a step back to an older Gust: the run goes on, its graph cannot be read.
    house.break_graph("bad").await;
    house.clock.advance(Duration::from_secs(3_700));
    for _ in 0..4 {
        house.scheduler.pass().await.unwrap();
    }
    let good = house.read().await.newest_dag_runs(&["good".into()], 1).await.unwrap()[0].id;
    assert_eq!(house.run_state(stuck).await, DagRunState::Running);
    assert_eq!(house.states(good).await.get("a"), Some(&S::Queued), "it is made, advanced and admitted");
}

#[tokio::test]
async fn many_runs_that_cannot_be_advanced_hold_up_nobody() {
    let house = House::new().await;
    let by_hand_dag = |name: &str| dag(name, &by_hand(), &[("a", &[], json!({}))]);
    house.put_file("bad.py", vec![by_hand_dag("bad")], &[]).await;
    house.put_file("good.py", vec![by_hand_dag("good")], &[]).await;
    for n in 0..70 {
        let id = house.trigger("bad", &format!("r{n}")).await;
        house.set_running(id).await;
    }
    let good = house.trigger("good", "r").await;
    house.set_running(good).await;
    house.break_graph("bad").await;
    for _ in 0..3 {
        house.scheduler.pass().await.unwrap();
        house.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(house.states(good).await.get("a"), Some(&S::Queued));
}

#[tokio::test]
async fn a_dag_with_many_waiting_runs_holds_up_no_other() {
    let house = House::new().await;
    let by_hand_dag = |name: &str| dag(name, &by_hand(), &[("a", &[], json!({}))]);
    house.put_file("busy.py", vec![by_hand_dag("busy")], &[]).await;
    house.put_file("other.py", vec![by_hand_dag("other")], &[]).await;
    for n in 0..300 {
        house.trigger("busy", &format!("r{n}")).await;
    }
    let other = house.trigger("other", "r").await;
    house.settle().await;
    assert_eq!(house.run_state(other).await, DagRunState::Running);
}

#[tokio::test]
async fn a_lease_within_its_grace_makes_no_busy_loop() {
    let house = House::new().await;
    house.put_file("x.py", vec![dag("d", &by_hand(), &[("a", &[], json!({}))])], &[]).await;
    house.trigger("d", "r").await;
    house.settle().await;
    let message = house.received().await[0];
    house.claim(message).await.unwrap();
    house.clock.advance(LEASE + Duration::from_secs(2));
    let pass = house.scheduler.pass().await.unwrap();
    assert_eq!(pass.reaped, 0);
    assert!(pass.next_due_in.unwrap() >= Duration::from_millis(500), "{pass:?}");
}

#[tokio::test]
async fn a_scheduler_says_that_it_lives_and_forgets_who_ended_long_ago() {
    let house = House::new().await;
    for (name, days) in [("yesterday's", 2), ("a moment ago", 0)] {
        let heartbeat_at = gust_ports::Clock::now(&*house.clock) - chrono::TimeDelta::days(days);
        let mut tx = house.write().await;
        let component = Component {
            kind: ComponentKind::Worker,
            name: name.to_owned(),
            heartbeat_at,
            started_at: heartbeat_at,
        };
        tx.put_component(&component).await.unwrap();
        tx.commit().await.unwrap();
    }
    house.scheduler.run(std::future::ready(())).await;
    let known = house.read().await.components().await.unwrap();
    let mut names: Vec<_> = known.into_iter().map(|component| component.name).collect();
    names.sort();
    assert_eq!(names, ["a moment ago", "scheduler"]);
}
