//! Usage, configuration, help and exit codes.

use std::fs;

use insta::assert_snapshot;

use crate::house::Home;

#[test]
fn help_says_what_there_is_with_examples() {
    let home = Home::empty();
    assert_snapshot!("help", home.gust(&["-h"]).ok());
    assert_snapshot!("help_dags", home.gust(&["dags", "-h"]).ok());
    assert_snapshot!("help_trigger", home.gust(&["dags", "trigger", "-h"]).ok());
    assert_snapshot!("help_logs", home.gust(&["tasks", "logs", "-h"]).ok());
    assert_snapshot!("help_standalone", home.gust(&["standalone", "-h"]).ok());
}

#[test]
fn wrong_usage_and_wrong_configuration_end_with_2() {
    let home = Home::migrated();
    for arguments in [
        &["nonsense"][..],
        &["dags"],
        &["dags", "list", "--columns", "nope"],
        &["dags", "list-runs", "x", "--state", "nope"],
        &["dags", "list", "-o", "xml"],
    ] {
        let ran = home.gust(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}");
    }
    fs::write(home.path().join("gust.toml"), "[core]\nparalelism = 3\n[api]\nport = 'x'\n").unwrap();
    let ran = home.gust(&["dags", "list"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("paralelism") && ran.err.contains("did you mean [core] parallelism?"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("api.port"), "{}", ran.err);
    // The version and the reference are told whatever is configured.
    home.gust(&["version"]).ok();
    home.gust(&["config", "reference"]).ok();
}

#[test]
fn the_configuration_says_where_each_value_comes_from() {
    let home = Home::empty();
    fs::write(home.path().join("gust.toml"), "[core]\nparallelism = 3\n").unwrap();
    let variables = [
        ("GUST__API__PORT", "9000"),
        ("AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG", "7"),
        ("GUST__API_AUTH__JWT_SECRET", "s3cr3t"),
    ];
    let listed = home.gust_with(&["config", "list", "--changed"], &variables).ok();
    assert!(!listed.contains("s3cr3t"));
    // How wide the columns are depends on where the home is.
    let narrow: Vec<_> =
        listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_snapshot!(narrow.join("\n"));
    let value =
        home.gust_with(&["config", "get-value", "core", "parallelism", "-o", "json"], &variables).json();
    assert_eq!((&value["value"], &value["source"]), (&"3".into(), &"HOME/gust.toml:2".into()));
    let wrong = home.gust(&["config", "get-value", "core", "paralelism"]);
    assert_eq!((wrong.code, wrong.err.contains("did you mean core.parallelism?")), (1, true));
    assert_eq!(home.gust(&["config", "list", "--section", "cor"]).code, 1);
}

#[test]
fn the_reference_is_a_configuration_file_that_loads() {
    let home = Home::empty();
    let reference = home.gust(&["config", "reference"]).ok();
    fs::write(home.path().join("gust.toml"), &reference).unwrap();
    home.gust(&["config", "list"]).ok();
    // With its defaults uncommented it says the same.
    let live: String = reference
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") && !setting.contains("{home}") => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    fs::write(home.path().join("gust.toml"), live).unwrap();
    home.gust(&["config", "list"]).ok();
}

#[test]
fn a_reader_that_stops_reading_is_no_error() {
    use std::process::{Command, Stdio};
    let home = Home::empty();
    let mut child = Command::new(env!("CARGO_BIN_EXE_gust"))
        .args(["config", "reference"])
        .arg("--home")
        .arg(home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
