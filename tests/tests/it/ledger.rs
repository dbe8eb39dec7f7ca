//! DAGs whose tasks write down, in a file beside Gust, when they begin and end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use gust_tests::Rest;
use serde_json::Value;

/// The DAGs: a chain, mapped tasks, and a task that fails at its first try.
pub const DAG_IDS: [&str; 3] = ["chained", "mapped", "stumbling"];

/// How many lines a run writes at least, two for each of its task instances.
pub const LINES_OF_THREE_RUNS: usize = 2 * (5 + 6 + 3);

const DAGS: &str = r#"
import json
import os
import time
from datetime import timedelta

from airflow.sdk import dag, get_current_context, task

LEDGER = "@LEDGER@"
MANY = {"retries": 60, "retry_delay": timedelta(0)}


def note(what):
    ti = get_current_context()["ti"]
    line = {
        "dag": ti.dag_id,
        "run": ti.run_id,
        "task": ti.task_id,
        "map_index": ti.map_index,
        "try": ti.try_number,
        "what": what,
        "worker": os.environ.get("E2E_WORKER"),
    }
    # One write to a file opened for appending is whole, whoever else writes.
    out = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(out, (json.dumps(line) + "\n").encode())
    os.close(out)


def work(seconds):
    note("start")
    time.sleep(seconds)
    note("end")


@dag(schedule=None, default_args=MANY)
def chained():
    @task
    def step(before, seconds):
        work(seconds)
        return before + 1

    value = 0
    for n in range(5):
        value = step.override(task_id=f"step{n}")(value, n / 5)


@dag(schedule=None, default_args=MANY)
def mapped():
    @task
    def make():
        work(0.1)
        return [1, 2, 3, 4]

    @task
    def square(n):
        work(0.2)
        return n * n

    @task
    def total(squares):
        work(0)
        assert sum(squares) == 30, squares

    total(square.expand(n=make()))


@dag(schedule=None, default_args=MANY)
def stumbling():
    @task
    def before():
        work(0)

    @task
    def twice():
        note("start")
        time.sleep(0.1)
        if get_current_context()["ti"].try_number == 1:
            raise ValueError("meant to fail at first")
        note("end")

    @task
    def after():
        work(0)

    before() >> twice() >> after()


chained()
mapped()
stumbling()
"#;

/// The file of DAGs that write to this ledger.
pub fn dags(ledger: &Path) -> String {
    DAGS.replace("@LEDGER@", ledger.to_str().unwrap())
}

/// A task instance: DAG, run, task, map index.
type Instance = (String, String, String, i64);

fn instance_of(value: &Value, dag: &str, run: &str, task: &str) -> Instance {
    let text = |field: &str| value[field].as_str().unwrap().to_owned();
    (text(dag), text(run), text(task), value["map_index"].as_i64().unwrap())
}

/// The whole lines of the ledger.
pub fn lines(ledger: &Path) -> Vec<Value> {
    let text = fs::read_to_string(ledger).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Starts of tries that have not ended, other than of those that are meant not to.
pub fn open_tries(ledger: &Path) -> Vec<Value> {
    let mut open = BTreeMap::new();
    for line in lines(ledger) {
        let key = (instance_of(&line, "dag", "run", "task"), line["try"].as_i64().unwrap());
        if line["what"] == "end" {
            open.remove(&key);
        } else if (line["task"].as_str(), key.1) != (Some("twice"), 1) {
            open.insert(key, line);
        }
    }
    open.into_values().collect()
}

/// Looks at everything that ran, and returns what is wrong with it.
///
/// Every run succeeded; every task instance has exactly one successful try, its last; every try began at most once; the
/// successful one wrote down its start and its end; and nothing was written down that Gust does not know.
pub async fn audit(rest: &Rest, ledger: &Path, expected_runs: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut written: BTreeMap<(Instance, i64), (usize, usize)> = BTreeMap::new();
    for line in lines(ledger) {
        let key = (instance_of(&line, "dag", "run", "task"), line["try"].as_i64().unwrap());
        let (starts, ends) = written.entry(key).or_default();
        if line["what"] == "start" { *starts += 1 } else { *ends += 1 }
    }
    let mut runs = BTreeSet::new();
    for dag in DAG_IDS {
        for run in rest.all(&format!("/api/v2/dags/{dag}/dagRuns"), "dag_runs").await {
            let run_id = run["dag_run_id"].as_str().unwrap().to_owned();
            if run["state"] != "success" {
                wrong.push(format!("{dag} {run_id} is {}", run["state"]));
            }
            runs.insert((dag.to_owned(), run_id));
        }
    }
    for (dag, run) in expected_runs.difference(&runs) {
        wrong.push(format!("{dag} {run} was acknowledged and is not there"));
    }
    let mut known = BTreeSet::new();
    for (dag, run) in &runs {
        for one in rest.task_instances(dag, run).await {
            let instance = instance_of(&one, "dag_id", "dag_run_id", "task_id");
            let last = one["try_number"].as_i64().unwrap();
            if one["state"] != "success" {
                wrong.push(format!("{instance:?} is {}", one["state"]));
            }
            let tries = tries_of(rest, &instance).await;
            let numbers: Vec<i64> = tries.iter().map(|(number, _)| *number).collect();
            if numbers != (1..=last).collect::<Vec<_>>() {
                wrong.push(format!("{instance:?} is at try {last} and has the tries {numbers:?}"));
            }
            for (number, state) in &tries {
                if (state == "success") != (*number == last) {
                    wrong.push(format!("{instance:?} ended as {state} at try {number} of {last}"));
                }
                if !matches!(state.as_str(), "success" | "failed" | "up_for_retry") {
                    wrong.push(format!("{instance:?} has a try {number} that is {state}"));
                }
                let key = (instance.clone(), *number);
                let (starts, ends) = written.get(&key).copied().unwrap_or_default();
                if starts > 1 || ends > 1 {
                    wrong.push(format!(
                        "{instance:?} try {number} began {starts} times and ended {ends} times"
                    ));
                }
                if *number == last && (starts, ends) != (1, 1) {
                    wrong.push(format!(
                        "{instance:?} succeeded at try {number}, which began {starts} times, ended {ends}"
                    ));
                }
                known.insert(key);
            }
        }
    }
    for key in written.keys().filter(|key| !known.contains(*key)) {
        wrong.push(format!("{key:?} ran and is not known"));
    }
    wrong
}

/// The tries of a task instance: number and state.
async fn tries_of(rest: &Rest, (dag, run, task, map_index): &Instance) -> Vec<(i64, String)> {
    let mapped = if *map_index >= 0 { format!("/{map_index}") } else { String::new() };
    let path = format!("/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}{mapped}/tries");
    let answer = rest.get(&path).await;
    let mut tries: Vec<(i64, String)> = answer["task_instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["try_number"].as_i64().unwrap(), one["state"].as_str().unwrap_or("none").to_owned()))
        .collect();
    tries.sort();
    tries
}
