//! Cron expressions on naive time, against croniter.

use std::path::Path;

use chrono::NaiveDateTime;
use gust_timetable::CronExpression;
use serde_json::{Value, json};

use crate::vectors::{data, read, report};

fn steps(
    case: &Value,
    key: &str,
    step: impl Fn(NaiveDateTime) -> Option<NaiveDateTime>,
    wrong: &mut Vec<String>,
) {
    for pair in case[key].as_array().unwrap() {
        let from: NaiveDateTime = pair[0].as_str().unwrap().parse().unwrap();
        let expected: Option<NaiveDateTime> = pair[1].as_str().map(|to| to.parse().unwrap());
        let ours = step(from);
        if ours != expected {
            wrong.push(format!("  {key} from {from}: croniter {expected:?}, Gust {ours:?}"));
        }
    }
}

fn check(path: &Path) {
    let cases = read(path);
    let mut differences = Vec::new();
    for case in &cases {
        let text = case["expression"].as_str().unwrap();
        let mut wrong = Vec::new();
        match (CronExpression::parse(text), case["valid"].as_bool().unwrap()) {
            (Err(_), false) => {}
            // Airflow knows presets that croniter does not.
            (Ok(_), false) if text == "@quarterly" => {}
            (Ok(_), false) => wrong.push("  croniter refuses it, Gust does not".into()),
            (Err(error), true) => wrong.push(format!("  croniter takes it, Gust says: {error}")),
            (Ok(cron), true) => {
                steps(case, "next", |from| cron.next_after(from).ok(), &mut wrong);
                steps(case, "prev", |from| cron.previous_before(from).ok(), &mut wrong);
                if json!(cron.covers_every_hour()) != case["covers_every_hour"] {
                    wrong.push(format!("  covers_every_hour: Airflow {}", case["covers_every_hour"]));
                }
                if case.get("description").is_some_and(|words| *words != json!(cron.description())) {
                    wrong.push(format!(
                        "  description: Airflow {}, Gust {:?}",
                        case["description"],
                        cron.description()
                    ));
                }
            }
        }
        if !wrong.is_empty() {
            differences.push(format!("{text:?}\n{}", wrong.join("\n")));
        }
    }
    report(path, cases.len(), &differences);
}

#[test]
fn cron_expressions_mean_what_croniter_makes_of_them() {
    check(&data("crons.json"));
    if let Some(path) = std::env::var_os("GUST_CRON_VECTORS") {
        check(Path::new(&path));
    }
}
