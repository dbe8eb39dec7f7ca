//! `gust standalone` through a user's day: changed and broken DAG files, stops and starts, secrets, a task that is ended.

use std::{fs, path::Path, time::Duration};

use gust_tests::{Gust, House, Marked, Options, Rest, eventually, python};
use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::{Value, json};

/// A generous bound for what takes a second or two.
const SOON: Duration = Duration::from_mins(1);

const GATED: &str = r#"
import os
import time

from airflow.sdk import dag, task

CODE = "@CODE@"


@dag(schedule=None, description=CODE)
def gated():
    @task
    def wait():
        print("at the gate")
        while not os.path.exists("@GATE@"):
            time.sleep(0.05)
        return CODE

    @task
    def after(before):
        return f"{before} and {CODE}"

    after(wait())


gated()
"#;

fn gated(gate: &Path, code: &str) -> String {
    GATED.replace("@GATE@", gate.to_str().unwrap()).replace("@CODE@", code)
}

async fn await_task(rest: &Rest, dag: &str, run: &str, task: &str, state: &str) {
    eventually(&format!("{dag} {run} {task} is {state}"), SOON, async || {
        let states = rest.task_states(dag, run).await;
        (states.get(task)?.as_deref() == Some(state)).then_some(())
    })
    .await;
}

async fn xcom(rest: &Rest, dag: &str, run: &str, task: &str) -> Value {
    let path = format!("/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value");
    rest.get(&path).await["value"].clone()
}

#[tokio::test]
async fn a_stop_waits_for_running_tasks_and_the_next_start_carries_on() {
    let Some(python) = python().await else { return };
    let mut house = House::new();
    let gate = house.file("gate");
    house = house.with_dag("gated.py", &gated(&gate, "one"));
    let mut gust = Gust::start(&house, &python, &Options::default()).await;
    gust.rest.await_dags(&["gated"], SOON).await;
    gust.rest.unpause("gated").await;
    gust.rest.trigger("gated", "over-a-stop", None).await.unwrap();
    await_task(&gust.rest, "gated", "over-a-stop", "wait", "running").await;

    kill(gust.service.pid(), Signal::SIGINT).unwrap();
    eventually("it says that it stops", SOON, async || {
        gust.service.written().contains("running tasks are waited for").then_some(())
    })
    .await;
    gust.service.check();
    fs::write(&gate, "").unwrap();
    let status = gust.service.wait(SOON).await.expect("it ends once its task has ended");
    assert!(status.success(), "{status}");

    let mut gust = Gust::start(&house, &python, &Options::default()).await;
    assert_eq!(gust.rest.await_run("gated", "over-a-stop", SOON).await, "success");
    let tries: Vec<Value> = gust
        .rest
        .task_instances("gated", "over-a-stop")
        .await
        .iter()
        .map(|one| one["try_number"].clone())
        .collect();
    assert_eq!(tries, [json!(1), json!(1)], "nothing ran twice");
    assert!(gust.service.stop(SOON).await.success());
}

#[tokio::test]
async fn a_changed_file_is_noticed_and_runs_stay_on_the_code_they_started_with() {
    let Some(python) = python().await else { return };
    let mut house = House::new();
    let gate = house.file("gate");
    house = house.with_dag("gated.py", &gated(&gate, "old"));
    let gust = Gust::start(&house, &python, &Options::default()).await;
    gust.rest.await_dags(&["gated"], SOON).await;
    gust.rest.unpause("gated").await;
    gust.rest.trigger("gated", "before", None).await.unwrap();
    await_task(&gust.rest, "gated", "before", "wait", "running").await;

    let house = house.with_dag("gated.py", &gated(&gate, "new"));
    eventually("the change is noticed", SOON, async || {
        let dag = gust.rest.get("/api/v2/dags/gated").await;
        (dag["description"] == "new").then_some(())
    })
    .await;
    fs::write(&gate, "").unwrap();
    gust.rest.trigger("gated", "behind", None).await.unwrap();
    assert_eq!(gust.rest.await_run("gated", "before", SOON).await, "success");
    assert_eq!(gust.rest.await_run("gated", "behind", SOON).await, "success");
    assert_eq!(xcom(&gust.rest, "gated", "before", "after").await, "old and old");
    assert_eq!(xcom(&gust.rest, "gated", "behind", "after").await, "new and new");
    let versions = gust.rest.all("/api/v2/dags/gated/dagVersions", "dag_versions").await;
    assert_eq!(versions.len(), 2, "one version for each content: {versions:?}");
    drop(house);
}

#[tokio::test]
async fn a_bad_file_is_reported_spares_the_others_and_keeps_its_last_good_version() {
    let Some(python) = python().await else { return };
    let mut house = House::new();
    let gate = house.file("gate");
    house = house
        .set("AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT", "3")
        .with_dag("gated.py", &gated(&gate, "good"))
        .with_dag("looping.py", "# An airflow dag that never is\nwhile True:\n    pass\n")
        .with_dag("broken.py", "from airflow.sdk import dag\nthis is no Python\n");
    let gust = Gust::start(&house, &python, &Options::default()).await;
    gust.rest.await_dags(&["gated"], SOON).await;
    let errors = |wanted: &'static [&'static str]| {
        let rest = gust.rest.clone();
        async move {
            eventually(&format!("the import errors are of {wanted:?}"), SOON, async || {
                let errors = rest.all("/api/v2/importErrors", "import_errors").await;
                let mut files: Vec<&str> =
                    errors.iter().map(|error| error["filename"].as_str().unwrap()).collect();
                files.sort_unstable();
                (files == wanted).then(|| errors.clone())
            })
            .await
        }
    };
    let found = errors(&["broken.py", "looping.py"]).await;
    let trace_of = |file: &str| {
        let error = found.iter().find(|error| error["filename"] == file).unwrap();
        error["stack_trace"].as_str().unwrap().to_owned()
    };
    assert!(trace_of("broken.py").contains("SyntaxError"), "{}", trace_of("broken.py"));
    assert!(
        trace_of("looping.py").contains("longer than 3 s"),
        "it names the limit: {}",
        trace_of("looping.py")
    );

    house = house.with_dag("looping.py", "# airflow dag\n").with_dag("broken.py", "# airflow dag\n");
    errors(&[]).await;
    gust.rest.unpause("gated").await;
    gust.rest.trigger("gated", "last-good", None).await.unwrap();
    await_task(&gust.rest, "gated", "last-good", "wait", "running").await;
    let house = house.with_dag("gated.py", "from airflow.sdk import dag\nraise ValueError('spoiled')\n");
    errors(&["gated.py"]).await;
    let dag = gust.rest.get("/api/v2/dags/gated").await;
    assert_eq!((&dag["has_import_errors"], &dag["description"]), (&json!(true), &json!("good")));
    let refused = gust.rest.trigger("gated", "spoiled", None).await.unwrap_err();
    assert_eq!(refused.status, Some(400), "as in Airflow: {}", refused.text);
    fs::write(&gate, "").unwrap();
    assert_eq!(gust.rest.await_run("gated", "last-good", SOON).await, "success", "the good version serves");
    drop(house);
}

const TALKATIVE: &str = r#"
from airflow.sdk import BaseHook, Variable, dag, task


@dag(schedule=None)
def talkative():
    @task
    def talk():
        password = BaseHook.get_connection("vault").password
        print("the password is", password)
        print("within a text: <" + password + ">")
        print("the key is", Variable.get("api_key"))
        print("the colour is", Variable.get("colour"))

    talk()


talkative()
"#;

#[tokio::test]
async fn secrets_are_sealed_at_rest_and_never_in_a_log() {
    const PASSWORD: &str = "correct-horse-battery";
    const KEY: &str = "staple-0815-mangrove";
    let Some(python) = python().await else { return };
    let house = House::new().with_dag("talkative.py", TALKATIVE);
    let gust = Gust::start(&house, &python, &Options::default()).await;
    let connection =
        json!({"connection_id": "vault", "conn_type": "http", "login": "somebody", "password": PASSWORD});
    gust.rest.post("/api/v2/connections", &connection).await;
    gust.rest.post("/api/v2/variables", &json!({"key": "api_key", "value": KEY})).await;
    gust.rest.post("/api/v2/variables", &json!({"key": "colour", "value": "ultramarine"})).await;
    gust.rest.await_dags(&["talkative"], SOON).await;
    gust.rest.unpause("talkative").await;
    gust.rest.trigger("talkative", "once", None).await.unwrap();
    assert_eq!(gust.rest.await_run("talkative", "once", SOON).await, "success");
    let log = gust.rest.log("talkative", "once", "talk", 1).await;
    assert!(log.contains("the password is ***") && log.contains("<***>"), "{log}");
    assert!(log.contains("the key is ***"), "{log}");
    assert!(log.contains("the colour is ultramarine"), "what is no secret is shown: {log}");
    assert!(!log.contains(PASSWORD) && !log.contains(KEY), "{log}");
    let shown = gust.rest.get("/api/v2/connections/vault").await;
    assert_ne!(shown["password"], PASSWORD, "{shown}");
    drop(gust);
    for file in files(&house.home()) {
        let bytes = fs::read(&file).unwrap_or_default();
        for secret in [PASSWORD, KEY] {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{secret} stands in {}", file.display());
        }
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder { files(&entry.path()) } else { vec![entry.path()] }
        })
        .collect()
}

const STUBBORN: &str = r#"
import signal
import subprocess
import time

from airflow.sdk import dag, task


@dag(schedule=None)
def stubborn():
    @task
    def stay():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "313"])
        print("here to stay")
        while True:
            time.sleep(0.1)

    stay()


stubborn()
"#;

#[tokio::test]
async fn a_task_that_is_marked_failed_ends_though_it_ignores_signals() {
    let Some(python) = python().await else { return };
    let mark = Marked::new("stubborn");
    let (variable, value) = mark.variable();
    let house = House::new()
        .set(variable, value)
        .set("AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME", "1")
        .with_dag("stubborn.py", STUBBORN);
    let gust = Gust::start(&house, &python, &Options::default()).await;
    gust.rest.await_dags(&["stubborn"], SOON).await;
    gust.rest.unpause("stubborn").await;
    gust.rest.trigger("stubborn", "marked", None).await.unwrap();
    let sleeper = || {
        let family = mark.family(gust.service.pid());
        family.into_iter().find(|(_, _, command)| command.starts_with("sleep 313"))
    };
    eventually("the task is at work", SOON, async || sleeper()).await;
    let path = "/api/v2/dags/stubborn/dagRuns/marked/taskInstances/stay";
    let body = json!({"new_state": "failed"});
    gust.rest.call(Method::PATCH, path, Some(&body)).await.unwrap();
    assert_eq!(gust.rest.await_run("stubborn", "marked", SOON).await, "failed");
    eventually("the task and what it started are gone", SOON, async || sleeper().is_none().then_some(()))
        .await;
    assert_eq!(gust.rest.task_states("stubborn", "marked").await["stay"].as_deref(), Some("failed"));
}
