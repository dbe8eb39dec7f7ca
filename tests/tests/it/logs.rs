//! Logs of running and of killed tasks.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use gust_tests::{Gust, House, Options, eventually, python};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

/// A generous bound: what matters is that lines come while the task runs.
const SOON: Duration = Duration::from_secs(30);

const WAITING: &str = r#"
import os
import time

from airflow.sdk import dag, task


@dag(schedule=None)
def waiting():
    @task
    def wait():
        print("before the gate")
        while not os.path.exists("@GATE@"):
            time.sleep(0.05)
        print("behind the gate")

    wait()


waiting()
"#;

const COUNTING: &str = r#"
import time

from airflow.sdk import dag, task


@dag(schedule=None)
def counting():
    @task
    def count():
        for n in range(10_000):
            print(f"line {n:05}.")
            time.sleep(0.05)

    count()


counting()
"#;

#[tokio::test]
async fn a_followed_log_moves_while_its_task_runs() {
    let Some(python) = python().await else { return };
    let mut house = House::new();
    let gate = house.file("gate");
    house = house.with_dag("waiting.py", &WAITING.replace("@GATE@", gate.to_str().unwrap()));
    let gust = Gust::start(&house, &python, &Options::default()).await;
    gust.rest.await_dags(&["waiting"], SOON).await;
    gust.rest.unpause("waiting").await;
    gust.rest.trigger("waiting", "followed", None).await.unwrap();
    eventually("the task is planned", SOON, async || {
        gust.rest.task_states("waiting", "followed").await.contains_key("wait").then_some(())
    })
    .await;

    let mut command =
        Command::from(house.command(["tasks", "logs", "waiting", "followed", "wait", "--follow"]));
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut follower = command.spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    let mut is_open = false;
    while let Some(line) = timeout(SOON, lines.next_line()).await.expect("the log moves").unwrap() {
        if line.contains("before the gate") {
            assert_eq!(
                gust.rest.run_state("waiting", "followed").await,
                "running",
                "it came while the task runs"
            );
            fs::write(&gate, "").unwrap();
            is_open = true;
        }
        assert!(is_open || !line.contains("behind the gate"), "lines come in order: {seen:?}");
        seen.push(line);
    }
    assert!(seen.iter().any(|line| line.contains("behind the gate")), "the last line came: {seen:?}");
    let status = timeout(SOON, follower.wait()).await.expect("the follower ends with the task").unwrap();
    assert!(status.success());
    assert_eq!(gust.rest.await_run("waiting", "followed", SOON).await, "success");
}

#[tokio::test]
async fn the_log_of_a_killed_task_keeps_what_was_stored_and_is_ended() {
    let Some(python) = python().await else { return };
    let house = House::new().with_dag("counting.py", COUNTING);
    let mut gust = Gust::start(&house, &python, &Options::default()).await;
    gust.rest.await_dags(&["counting"], SOON).await;
    gust.rest.unpause("counting").await;
    gust.rest.trigger("counting", "killed", None).await.unwrap();
    let stored = eventually("some lines are stored", SOON, async || {
        let instances = gust.rest.task_instances("counting", "killed").await;
        if instances.first().is_none_or(|one| one["try_number"] == 0) {
            return None;
        }
        let log = gust.rest.log("counting", "killed", "count", 1).await;
        log.contains("line 00005.").then_some(log)
    })
    .await;
    gust.service.kill();

    let gust = Gust::start(&house, &python, &Options::default()).await;
    assert_eq!(gust.rest.await_run("counting", "killed", Duration::from_mins(2)).await, "failed");
    let log = eventually("the log is ended", SOON, async || {
        is_ended(&house).then_some(())?;
        Some(gust.rest.log("counting", "killed", "count", 1).await)
    })
    .await;
    for line in stored.lines() {
        assert!(log.contains(line), "{line:?} was stored and is gone:\n{log}");
    }
    let last = log.lines().last().unwrap_or_default();
    assert!(!last.contains("line 0"), "the end says what happened: {last:?}");
    println!("the log ends with: {last}");
}

/// Whether the one log in the store has its last part.
fn is_ended(house: &House) -> bool {
    fn files(folder: PathBuf) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .flat_map(|entry| if entry.path().is_dir() { files(entry.path()) } else { vec![entry.path()] })
            .collect()
    }
    files(house.home().join("store")).iter().any(|path| {
        path.to_string_lossy().contains("task_id=count") && path.to_string_lossy().contains("-end.jsonl")
    })
}
