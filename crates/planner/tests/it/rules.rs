//! What each trigger rule makes of upstreams, as a table for people. `oracle.rs` holds more cases against Airflow.

use gust_model::MapIndex;
use gust_planner::evaluate_trigger_rule;
use rstest::rstest;

use crate::oracle::{counts, verdict_text};

/// One letter an upstream: S success, F failed, K skipped, U upstream failed, R removed, · still running.
fn verdict(rule: &str, upstreams: &str) -> &'static str {
    let states = upstreams.chars().map(|letter| match letter {
        'S' => "success",
        'F' => "failed",
        'K' => "skipped",
        'U' => "upstream_failed",
        'R' => "removed",
        _ => "running",
    });
    let counts = counts(states.map(|state| (state, false)));
    verdict_text(evaluate_trigger_rule(rule.parse().unwrap(), &counts, MapIndex::UNMAPPED))
}

#[rstest]
//                                       SS           S·      SF                 SK         FF                 KK         F·                 K·
#[case("all_success",                  ["met",       "wait", "upstream_failed", "skipped", "upstream_failed", "skipped", "upstream_failed", "skipped"])]
#[case("all_failed",                   ["skipped",   "skipped", "skipped",      "skipped", "met",             "skipped", "wait",            "skipped"])]
#[case("all_done",                     ["met",       "wait", "met",             "met",     "met",             "met",     "wait",            "wait"])]
#[case("all_done_min_one_success",     ["met",       "wait", "met",             "skipped", "upstream_failed", "skipped", "wait",            "skipped"])]
#[case("all_done_setup_success",       ["met",       "wait", "met",             "met",     "met",             "met",     "wait",            "wait"])]
#[case("one_success",                  ["met",       "met",  "met",             "met",     "upstream_failed", "skipped", "wait",            "wait"])]
#[case("one_failed",                   ["skipped",   "wait", "met",             "skipped", "met",             "skipped", "met",             "wait"])]
#[case("one_done",                     ["met",       "met",  "met",             "met",     "met",             "skipped", "met",             "wait"])]
#[case("none_failed",                  ["met",       "wait", "upstream_failed", "met",     "upstream_failed", "met",     "upstream_failed", "wait"])]
#[case("none_skipped",                 ["met",       "wait", "met",             "skipped", "met",             "skipped", "wait",            "skipped"])]
#[case("always",                       ["met",       "met",  "met",             "met",     "met",             "met",     "met",             "met"])]
#[case("none_failed_min_one_success",  ["met",       "wait", "upstream_failed", "met",     "upstream_failed", "skipped", "upstream_failed", "wait"])]
#[case("all_skipped",                  ["skipped",   "skipped", "skipped",      "skipped", "skipped",         "met",     "skipped",         "wait"])]
#[rustfmt::skip]
fn a_rule_reads_its_upstreams(#[case] rule: &str, #[case] expected: [&str; 8]) {
    for (upstreams, expected) in ["SS", "S·", "SF", "SK", "FF", "KK", "F·", "K·"].iter().zip(expected) {
        assert_eq!(verdict(rule, upstreams), expected, "{rule} with {upstreams}");
    }
}

#[rstest]
#[case("all_success", "SR", "met")]
#[case("all_success", "U·", "upstream_failed")]
#[case("all_failed", "FR", "met")]
#[case("none_failed", "KR", "met")]
#[case("one_failed", "U·", "met")]
#[case("one_done", "UK", "skipped")]
#[case("one_success", "KU", "upstream_failed")]
#[case("all_done_min_one_success", "RR", "upstream_failed")]
#[case("none_failed_min_one_success", "KR", "upstream_failed")]
#[case("all_skipped", "KR", "wait")]
fn removed_and_upstream_failed_count_as_in_airflow(
    #[case] rule: &str,
    #[case] upstreams: &str,
    #[case] expected: &str,
) {
    assert_eq!(verdict(rule, upstreams), expected, "{rule} with {upstreams}");
}

#[test]
fn an_index_beyond_what_is_left_upstream_is_removed() {
    let counts = counts([("success", false), ("removed", false)]);
    let verdict =
        |index| verdict_text(evaluate_trigger_rule("all_success".parse().unwrap(), &counts, MapIndex(index)));
    assert_eq!(verdict(0), "met");
    assert_eq!(verdict(1), "removed");
}
