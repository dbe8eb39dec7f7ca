//! Looking at DAGs, runs, tasks and logs, and acting on them.

use insta::assert_snapshot;

use crate::house::{Home, RUN};

#[tokio::test]
async fn dags_are_listed_with_their_last_run() {
    let home = Home::with_a_run().await;
    let listed = home.gust(&["dags", "list"]);
    assert!(listed.err.contains("1 import errors"), "{listed:?}");
    assert_snapshot!(listed.ok());
    assert_snapshot!(home.gust(&["dags", "list", "-o", "table", "--columns", "dag_id,last_run"]).ok());
    let rows = home.gust(&["dags", "list", "-o", "json"]).json();
    assert_eq!(rows[0]["dag_id"], "hello");
    assert_eq!(rows[0]["last_run"]["duration"], 3.0);
    assert_eq!(home.gust(&["dags", "list", "--tags", "other"]).ok(), "no DAGs\n");
}

#[tokio::test]
async fn a_dag_is_shown_as_a_tree_of_its_tasks() {
    let home = Home::with_a_run().await;
    assert_snapshot!(home.gust(&["dags", "show", "hello"]).ok());
    let shown = home.gust(&["dags", "show", "hello", "-o", "json"]).json();
    assert_eq!(shown["tasks"][3]["upstream"], serde_json::json!(["load.left", "load.right"]));
    assert_snapshot!(home.gust(&["tasks", "list", "hello"]).ok());
}

#[tokio::test]
async fn runs_and_states_are_found_by_id_and_by_date() {
    let home = Home::with_a_run().await;
    assert_snapshot!(home.gust(&["dags", "list-runs", "hello"]).ok());
    assert_eq!(home.gust(&["dags", "list-runs", "hello", "--state", "success"]).ok(), "no runs\n");
    for run in [RUN, "2026-01-31T06:30", "2026-01-31T07:30:00+01:00"] {
        assert_eq!(home.gust(&["dags", "state", "hello", run]).ok(), "failed, {\"who\":\"Ada\"}\n");
    }
    assert_snapshot!(home.gust(&["tasks", "states", "hello", RUN]).ok());
    let states = home.gust(&["tasks", "states", "hello", RUN, "-o", "json"]).json();
    assert_eq!(states[1]["map_index"], 0);
    assert!(states[1].get("lease").is_none());
}

#[tokio::test]
async fn a_task_is_named_before_or_behind_its_run() {
    let home = Home::with_a_run().await;
    assert_eq!(home.gust(&["tasks", "state", "hello", RUN, "extract"]).ok(), "success\n");
    assert_eq!(home.gust(&["tasks", "state", "hello", "extract", RUN]).ok(), "success\n");
    assert_eq!(
        home.gust(&["tasks", "state", "hello", RUN, "load.left", "--map-index", "0"]).ok(),
        "failed\n"
    );
    assert_snapshot!(home.gust(&["tasks", "render", "hello", RUN, "extract"]).ok());
}

#[tokio::test]
async fn logs_read_as_text_and_as_the_lines_that_they_are() {
    let home = Home::with_a_run().await;
    let logs = ["tasks", "logs", "hello", RUN, "extract"];
    assert_snapshot!(home.gust(&logs).ok());
    let lines = home.gust(&[&logs[..], &["-o", "json"]].concat()).ok();
    let events: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["event"], "begin");
    // The try is over, so following it ends at once.
    assert_eq!(home.gust(&[&logs[..], &["--follow"]].concat()).ok(), home.gust(&logs).ok());
}

#[tokio::test]
async fn unknown_names_are_errors_with_near_ones() {
    let home = Home::with_a_run().await;
    let failures = [
        &["dags", "show", "helo"][..],
        &["dags", "state", "hello", "manual__2026-01-31T06:30:00+00:01"],
        &["dags", "state", "hello", "nothing-like-it"],
        &["tasks", "state", "hello", RUN, "extrakt"],
        &["tasks", "state", "hello", RUN, "load.left"],
        &["tasks", "logs", "hello", RUN, "extract", "--try", "7"],
        &["tasks", "logs", "hello", RUN, "report"],
        &["tasks", "render", "hello", RUN, "report"],
        &["tasks", "clear", "hello", "-t", "zzz", "--yes"],
    ];
    let mut said = String::new();
    for arguments in failures {
        let ran = home.gust(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{arguments:?}");
        said.push_str(&ran.err);
    }
    assert_snapshot!(said);
}

#[tokio::test]
async fn a_trigger_makes_a_run_once() {
    let home = Home::with_a_run().await;
    let trigger =
        ["dags", "trigger", "hello", "--run-id", "mine", "--conf", r#"{"who": "Bob"}"#, "-o", "json"];
    let run = home.gust(&trigger).json();
    assert_eq!((&run["run_id"], &run["state"]), (&"mine".into(), &"queued".into()));
    assert_eq!(run["conf"]["who"], "Bob");
    let again = home.gust(&trigger);
    assert_eq!(again.code, 1, "{again:?}");
    assert_eq!(home.gust(&["dags", "state", "hello", "mine"]).ok(), "queued, {\"who\":\"Bob\"}\n");
    let wrong = home.gust(&["dags", "trigger", "hello", "--conf", r#"{"who": 7}"#]);
    assert_eq!((wrong.code, wrong.err.contains("who")), (1, true), "{wrong:?}");
}

#[tokio::test]
async fn pausing_says_what_was() {
    let home = Home::with_a_run().await;
    let paused = home.gust(&["dags", "pause", "hello", "-o", "json"]).json();
    assert_eq!((&paused[0]["was_paused"], &paused[0]["is_paused"]), (&false.into(), &true.into()));
    assert!(home.gust(&["dags", "list", "--active"]).ok().contains("no DAGs"));
    home.gust(&["dags", "unpause", "^hel", "--treat-dag-id-as-regex"]).ok();
    assert!(home.gust(&["dags", "list", "--active"]).ok().contains("hello"));
}

#[tokio::test]
async fn clearing_asks_first_and_a_dry_run_changes_nothing() {
    let home = Home::with_a_run().await;
    let clear = ["tasks", "clear", "hello", "--run-id", RUN, "--only-failed"];
    let unasked = home.gust(&clear);
    assert_eq!((unasked.code, unasked.err.contains("--yes")), (2, true), "{unasked:?}");
    let dry = home.gust(&[&clear[..], &["--dry-run", "-o", "json"]].concat()).json();
    assert!(dry.as_array().unwrap().iter().any(|row| row["task_id"] == "load.left"));
    assert_eq!(home.gust(&["dags", "state", "hello", RUN]).ok(), "failed, {\"who\":\"Ada\"}\n");
    home.gust(&[&clear[..], &["--yes"]].concat()).ok();
    assert_eq!(home.gust(&["dags", "state", "hello", RUN]).ok(), "queued, {\"who\":\"Ada\"}\n");
    assert_eq!(home.gust(&["tasks", "state", "hello", RUN, "extract"]).ok(), "success\n");
}

#[tokio::test]
async fn import_errors_show_their_traceback_and_cannot_steer_the_terminal() {
    let home = Home::with_a_run().await;
    assert_snapshot!(home.gust(&["dags", "list-import-errors"]).ok());
}

#[tokio::test]
async fn a_dag_is_removed_with_its_runs() {
    let home = Home::with_a_run().await;
    assert_eq!(home.gust(&["dags", "delete", "hello"]).code, 2);
    assert_eq!(home.gust(&["dags", "delete", "hello", "--yes"]).ok(), "removed the DAG hello with 1 runs\n");
    assert_eq!(home.gust(&["dags", "list"]).ok(), "no DAGs\n");
}
