//! DAGs end in Gust in the states in which they end in Airflow.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use gust_tests::{Gust, House, Options, Rest, example_dags_folder, keep_looking, python};
use serde_json::Value;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
const RUN: &str = "conformance";
/// How many differing DAGs are shown in full.
const SHOWN: usize = 10;

/// What a DAG's run ends in.
#[derive(Debug, PartialEq, Eq)]
struct Ending {
    run: String,
    tasks: BTreeMap<String, Option<String>>,
}

impl Ending {
    fn expected(entry: &Value) -> Self {
        let state = |value: &Value| value.as_str().map(str::to_owned);
        let tasks = entry["tis"].as_object().unwrap();
        Self {
            run: entry["run"].as_str().unwrap().to_owned(),
            tasks: tasks.iter().map(|(key, value)| (key.clone(), state(value))).collect(),
        }
    }

    async fn seen(rest: &Rest, dag_id: &str) -> Self {
        Self { run: rest.run_state(dag_id, RUN).await, tasks: rest.task_states(dag_id, RUN).await }
    }

    /// What differs, as `task: expected → got`.
    fn differences(&self, got: &Self) -> Vec<String> {
        let text = |state: Option<&Option<String>>| match state {
            None => "not there".to_owned(),
            Some(None) => "none".to_owned(),
            Some(Some(state)) => state.clone(),
        };
        let keys: BTreeSet<&String> = self.tasks.keys().chain(got.tasks.keys()).collect();
        let mut lines: Vec<String> = keys
            .into_iter()
            .filter(|key| self.tasks.get(*key) != got.tasks.get(*key))
            .map(|key| format!("{key}: {} → {}", text(self.tasks.get(key)), text(got.tasks.get(key))))
            .collect();
        if self.run != got.run {
            lines.insert(0, format!("run: {} → {}", self.run, got.run));
        }
        lines
    }
}

fn table(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn from_env(variable: &str, default: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| Path::new(FIXTURES).join(default), PathBuf::from)
}

/// Fails the test unless every DAG ended as expected; says how many did, and how the first others ended.
fn judge(expected: &BTreeMap<String, Ending>, got: &BTreeMap<String, Ending>) {
    let mut wrong = Vec::new();
    for (dag_id, ending) in expected {
        match got.get(dag_id) {
            None => wrong.push(format!("{dag_id}: did not run")),
            Some(seen) => {
                let differences = ending.differences(seen);
                if !differences.is_empty() {
                    wrong.push(format!("{dag_id}: {}", differences.join(", ")));
                }
            }
        }
    }
    println!("{} of {} DAGs end as in Airflow", expected.len() - wrong.len(), expected.len());
    let shown: Vec<&str> = wrong.iter().take(SHOWN).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} DAGs end otherwise (expected → got):\n{}", wrong.len(), shown.join("\n"));
}

#[tokio::test]
async fn random_dags_end_as_in_airflow() {
    let Some(python) = python().await else { return };
    let dags = from_env("GUST_RANDOM_DAGS", "random_dags");
    let states = table(&from_env("GUST_RANDOM_DAGS_EXPECTED", "random_dag_states.json"));
    let expected: BTreeMap<String, Ending> =
        states.as_object().unwrap().iter().map(|(id, entry)| (id.clone(), Ending::expected(entry))).collect();
    let house = House::new().set("AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION", "False").with_dags_of(&dags);
    let gust = Gust::start(&house, &python, &Options::default()).await;
    let ids: Vec<&str> = expected.keys().map(String::as_str).collect();
    gust.rest.await_dags(&ids, Duration::from_mins(2)).await;
    for id in &ids {
        gust.rest.trigger(id, RUN, None).await.unwrap_or_else(|refused| panic!("{id}: {refused:?}"));
    }
    let mut got = BTreeMap::new();
    for id in &ids {
        gust.rest.await_run(id, RUN, Duration::from_mins(5)).await;
        got.insert((*id).to_owned(), Ending::seen(&gust.rest, id).await);
    }
    judge(&expected, &got);
}

#[tokio::test]
async fn airflow_example_dags_end_as_in_airflow() {
    let Some(python) = python().await else { return };
    let states = table(&Path::new(FIXTURES).join("example_dag_states.json"));
    let house = House::new().with_dags_of(&example_dags_folder(&python));
    let gust = Gust::start(&house, &python, &Options::default()).await;
    files_parse_as_expected(&gust.rest, &states).await;

    let slow = states["slow_s"].as_object().unwrap();
    let runs_slow_ones = env::var_os("GUST_SLOW_TESTS").is_some();
    let mut expected = BTreeMap::new();
    for (id, entry) in states["dags"].as_object().unwrap() {
        if runs_slow_ones || !slow.contains_key(id) {
            expected.insert(id.clone(), Ending::expected(entry));
        } else {
            println!("left out: {id} takes {} s; GUST_SLOW_TESTS=1 runs it too", slow[id]);
        }
    }
    let got = run_examples(&gust.rest, &expected, &states).await;
    judge(&expected, &got);
}

/// Waits until every file of the table has been parsed, and compares what was found with the table.
async fn files_parse_as_expected(rest: &Rest, states: &Value) {
    let files = states["files"].as_object().unwrap();
    let names = |entry: &Value| -> BTreeSet<String> {
        entry["dag_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    let all: BTreeSet<String> = files.values().flat_map(names).collect();
    let ids: Vec<&str> = all.iter().map(String::as_str).collect();
    rest.await_dags(&ids, Duration::from_mins(2)).await;

    let mut got: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for dag in rest.all("/api/v2/dags", "dags").await {
        let file = dag["relative_fileloc"].as_str().unwrap().to_owned();
        got.entry(file).or_default().insert(dag["dag_id"].as_str().unwrap().to_owned());
    }
    let expected: BTreeMap<String, BTreeSet<String>> = files
        .iter()
        .map(|(file, entry)| (file.clone(), names(entry)))
        .filter(|(_, names)| !names.is_empty())
        .collect();
    assert_eq!(got, expected, "which DAGs are in which file");

    let errors = rest.all("/api/v2/importErrors", "import_errors").await;
    let failing: BTreeSet<&str> = errors.iter().map(|error| error["filename"].as_str().unwrap()).collect();
    let expected: BTreeSet<&str> =
        files.iter().filter(|(_, entry)| !entry["error"].is_null()).map(|(file, _)| file.as_str()).collect();
    assert_eq!(failing, expected, "files that cannot be imported: {errors:#?}");
}

/// Triggers every DAG, those that read what others leave behind after them, and collects how they end.
async fn run_examples(
    rest: &Rest,
    expected: &BTreeMap<String, Ending>,
    states: &Value,
) -> BTreeMap<String, Ending> {
    for id in expected.keys() {
        rest.unpause(id).await;
    }
    let waits_for = |id: &str| -> Vec<String> {
        let before = states["after"][id].as_array();
        before.into_iter().flatten().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    let trigger = async |id: &str| {
        let conf = states["conf"].get(id);
        rest.trigger(id, RUN, conf).await.unwrap_or_else(|refused| panic!("{id}: {refused:?}"));
    };
    let (later, at_once): (Vec<&String>, Vec<&String>) =
        expected.keys().partition(|id| !waits_for(id).is_empty());
    for id in &at_once {
        trigger(id).await;
    }
    for id in later {
        for before in waits_for(id) {
            rest.await_run(&before, RUN, Duration::from_mins(3)).await;
        }
        trigger(id).await;
    }
    // A run that does not end is shown with its states, among the others that differ.
    let ids: Vec<&String> = expected.keys().collect();
    let limit = if env::var_os("GUST_SLOW_TESTS").is_some() { 480 } else { 240 };
    let all_ended = async || {
        for id in &ids {
            if !matches!(rest.run_state(id, RUN).await.as_str(), "success" | "failed") {
                return None;
            }
        }
        Some(())
    };
    if keep_looking(Duration::from_secs(limit), all_ended).await.is_none() {
        println!("not all runs ended within {limit} s");
    }
    let mut got = BTreeMap::new();
    for id in ids {
        got.insert(id.clone(), Ending::seen(rest, id).await);
    }
    got
}
