//! Cases that Airflow 3.3.2 computed (`tests/oracle/make_vectors.py` makes more).

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use gust_timetable::{NextRun, TimeRestriction, Timetable, TimetableError};
use serde_json::{Value, json};

fn instant(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str().map(|text| DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc))
}

/// Instants as Python writes them, so that a difference reads like the case.
fn written(at: DateTime<Utc>) -> String {
    let text = if at.timestamp_subsec_micros() == 0 {
        "%Y-%m-%dT%H:%M:%S+00:00"
    } else {
        "%Y-%m-%dT%H:%M:%S%.6f+00:00"
    };
    at.format(text).to_string()
}

fn run_json(run: &NextRun) -> Value {
    let mut out = json!({
        "run_after": written(run.run_after),
        "interval": run.data_interval.map(|span| [written(span.start), written(span.end)]),
        "logical_date": run.logical_date.map(written),
    });
    if let Some(key) = &run.partition_key {
        out["partition_key"] = json!(key);
        out["partition_date"] = json!(run.partition_date.map(written));
    }
    out
}

/// What this crate answers to a case, under the case's own keys.
fn answer(case: &Value) -> Value {
    let timetable = match Timetable::from_serialized(&case["timetable"]) {
        Ok(timetable) => timetable,
        Err(error) => return json!({ "error": error.to_string() }),
    };
    let restriction = TimeRestriction {
        earliest: instant(&case["start"]),
        latest: instant(&case["end"]),
        catchup: case["catchup"].as_bool().unwrap(),
    };
    let now = instant(&case["now"]).unwrap();
    let mut runs: Vec<NextRun> = Vec::new();
    while runs.len() < 6 {
        let last = runs.last().map(NextRun::as_last);
        match timetable.next_run(last.as_ref(), &restriction, now) {
            Some(run) => runs.push(run),
            None => break,
        }
    }
    let mut out = json!({ "runs": runs.iter().map(run_json).collect::<Vec<_>>() });
    if let Some(manual) = case["manual"].as_array() {
        let spans = manual.iter().map(|pair| {
            let span = timetable.manual_run_interval(instant(&pair[0]).unwrap()).ok();
            json!([pair[0], span.map(|span| [written(span.start), written(span.end)])])
        });
        out["manual"] = spans.collect();
    }
    if let Some(pairs) = case["partition_dates"].as_array() {
        let dates = pairs.iter().map(|pair| match timetable.partition_date(pair[0].as_str()) {
            Ok(date) => json!([pair[0], date.map(written)]),
            Err(TimetableError::AskPython { .. }) => pair.clone(),
            Err(_) => json!([pair[0], "invalid"]),
        });
        out["partition_dates"] = dates.collect();
    }
    if let Some([earliest, latest, _]) = case["between"].as_array().map(Vec::as_slice) {
        let runs = timetable
            .runs_between(instant(earliest).unwrap(), instant(latest).unwrap(), 8)
            .unwrap_or_default();
        out["between"] =
            json!([earliest, latest, runs.iter().map(|run| written(run.run_after)).collect::<Vec<_>>()]);
    }
    out["summary"] = json!(timetable.summary());
    out["description"] = json!(timetable.description());
    out["periodic"] = json!(timetable.is_periodic());
    out["can_be_scheduled"] = json!(timetable.can_be_scheduled());
    out["active_runs_limit"] = json!(timetable.active_runs_limit());
    out["run_ordering"] = json!(timetable.run_ordering());
    out["type_name"] = json!(timetable.type_name());
    out
}

pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

pub(crate) fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails with the first differences, after saying how many cases agree.
pub(crate) fn report(path: &Path, cases: usize, differences: &[String]) {
    println!("{}: {} of {cases} cases agree with Airflow", path.display(), cases - differences.len());
    assert!(
        differences.is_empty(),
        "{} of {cases} cases differ from Airflow; the first:\n{}",
        differences.len(),
        differences.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("\n")
    );
}

fn check(path: &Path) {
    let cases = read(path);
    let mut differences = Vec::new();
    for case in &cases {
        let ours = answer(case);
        let keys = case.as_object().unwrap().keys().filter(|key| ours.get(*key).is_some());
        let wrong: Vec<String> = keys
            .filter(|key| ours[*key] != case[*key])
            .map(|key| format!("  {key}\n    Airflow: {}\n    Gust:    {}", case[key], ours[key]))
            .collect();
        if let Some(error) = ours.get("error") {
            differences.push(format!("{}\n  {error}", case["timetable"]));
        } else if !wrong.is_empty() {
            let asked = json!({ "start": case["start"], "end": case["end"], "now": case["now"], "catchup": case["catchup"] });
            differences.push(format!("{} {asked}\n{}", case["timetable"], wrong.join("\n")));
        }
    }
    report(path, cases.len(), &differences);
}

#[test]
fn timetable_vectors() {
    check(&data("timetables.json"));
    if let Some(path) = std::env::var_os("GUST_TIMETABLE_VECTORS") {
        check(Path::new(&path));
    }
}

#[test]
fn every_builtin_agrees_with_airflow_in_zones_restrictions_and_words() {
    check(&data("timetables_wide.json"));
}
