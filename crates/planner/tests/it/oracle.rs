//! Rules and retries, held against the answers of Airflow's own code (`fixtures/make_rules.py`).

use chrono::{DateTime, Utc};
use gust_model::{MapIndex, dag::Dag, record::UpstreamTally};
use gust_planner::{RuleVerdict, evaluate_trigger_rule, next_retry_at};
use serde_json::{Value, json};

use crate::build::dag;

const RULES: &str = include_str!("../fixtures/trigger_rules.json");
const RETRIES: &str = include_str!("../fixtures/retries.json");

/// A rule, the states of upstreams (none for one that is not over), which of them set up, and Airflow's verdict.
type RuleRow = (String, Vec<Option<String>>, Vec<bool>, String);

/// Upstreams in these states, `running` standing for any that is not over.
pub fn counts<'a>(states: impl IntoIterator<Item = (&'a str, bool)>) -> UpstreamTally {
    let mut counts = UpstreamTally::default();
    for (state, is_setup) in states {
        let setup = u32::from(is_setup);
        counts.total += 1;
        counts.setup_total += setup;
        match state {
            "success" => {
                counts.success += 1;
                counts.success_setup += setup;
            }
            "skipped" => {
                counts.skipped += 1;
                counts.skipped_setup += setup;
            }
            "failed" => counts.failed += 1,
            "upstream_failed" => counts.upstream_failed += 1,
            "removed" => counts.removed += 1,
            "running" => {}
            other => panic!("{other} is no state"),
        }
    }
    counts
}

pub fn verdict_text(verdict: RuleVerdict) -> &'static str {
    match verdict {
        RuleVerdict::Met => "met",
        RuleVerdict::Wait => "wait",
        RuleVerdict::Becomes(state) => state.as_str(),
    }
}

#[test]
fn every_trigger_rule_answers_as_airflow_does() {
    let rows: Vec<RuleRow> = serde_json::from_str(RULES).unwrap();
    assert!(rows.len() > 1000);
    for (rule, states, setups, expected) in rows {
        let names = states.iter().map(|state| state.as_deref().unwrap_or("running"));
        let counts = counts(names.zip(setups.iter().copied()));
        let verdict = evaluate_trigger_rule(rule.parse().unwrap(), &counts, MapIndex::UNMAPPED);
        assert_eq!(verdict_text(verdict), expected, "{rule} with {states:?}, setups {setups:?}");
    }
}

#[test]
fn retries_come_at_the_moment_that_airflow_computes() {
    let rows: Vec<Value> = serde_json::from_str(RETRIES).unwrap();
    assert_eq!(rows.len(), 300);
    for row in rows {
        let more = json!({
            "retry_delay": row["retry_delay"],
            "retry_exponential_backoff": row["retry_exponential_backoff"],
            "max_retry_delay": row["max_retry_delay"],
        });
        let dag_id = row["dag_id"].as_str().unwrap();
        let serialized = dag(dag_id).task(row["task_id"].as_str().unwrap(), &[], more).done();
        let dag = Dag::from_serialized(&serialized).unwrap();
        let moment = |key: &str| {
            row[key].as_str().map(|text| DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc))
        };
        let next = next_retry_at(
            &dag.tasks()[0],
            &dag.dag_id,
            moment("logical_date"),
            i32::try_from(row["try_number"].as_i64().unwrap()).unwrap(),
            row["override"].as_f64(),
            moment("end_date").unwrap(),
        );
        assert_eq!(Some(next), moment("next"), "{row}");
    }
}
