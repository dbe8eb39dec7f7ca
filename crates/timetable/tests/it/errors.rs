//! What a DAG author is told about a timetable that cannot be read.

use gust_timetable::{TimeRestriction, Timetable, TimetableError};
use rstest::rstest;
use serde_json::{Value, json};

fn cron(expression: &str, zone: &Value) -> Value {
    json!({ "__type": "airflow.timetables.interval.CronDataIntervalTimetable",
            "__var": { "expression": expression, "timezone": zone } })
}

fn builtin(class: &str, data: &Value) -> Value {
    json!({ "__type": format!("airflow.timetables.{class}"), "__var": data })
}

#[rstest]
#[case::value_out_of_range(cron("0 24 * * *", &json!("UTC")), &["\"0 24 * * *\"", "hour field \"24\"", "24 is out of range", "0-23"])]
#[case::too_few_fields(cron("0 0 * *", &json!("UTC")), &["it has 4 fields", "@daily"])]
#[case::unknown_name(cron("0 0 * foo *", &json!("UTC")), &["month field \"foo\"", "JAN-DEC"])]
#[case::step_of_zero(cron("*/0 * * * *", &json!("UTC")), &["minute field", "step of 0"])]
#[case::nth_too_large(cron("0 0 * * 5#6", &json!("UTC")), &["day-of-week field \"5#6\"", "1 to 5"])]
#[case::random(cron("R * * * *", &json!("UTC")), &["minute field", "random"])]
#[case::mixed_weekdays(cron("0 0 * * 1,5#2", &json!("UTC")), &["mixes plain days"])]
#[case::zone_in_lower_case(cron("@daily", &json!("europe/berlin")), &["\"europe/berlin\"", "did you mean \"Europe/Berlin\""])]
#[case::zone_without_region(cron("@daily", &json!("new york")), &["\"new york\"", "did you mean \"America/New_York\""])]
#[case::unknown_zone(cron("@daily", &json!("Mars/Olympus")), &["\"Mars/Olympus\"", "IANA name"])]
#[case::offset_too_large(cron("@daily", &json!(90000)), &["90000", "-86399 and 86399"])]
#[case::unknown_builtin(builtin("trigger.LunarTimetable", &json!({})), &["airflow.timetables.trigger.LunarTimetable", "3.3.2"])]
#[case::delta_of_zero(builtin("interval.DeltaDataIntervalTimetable", &json!({ "delta": 0.0 })), &["must be positive", "0:00:00"])]
#[case::negative_relativedelta(builtin("trigger.DeltaTriggerTimetable", &json!({ "delta": { "days": -1 }, "interval": 0 })), &["relativedelta(days=-1)"])]
#[case::unknown_part(builtin("interval.DeltaDataIntervalTimetable", &json!({ "delta": { "fortnights": 1 } })), &["\"fortnights\"", "weeks"])]
#[case::missing_expression(builtin("interval.CronDataIntervalTimetable", &json!({ "timezone": "UTC" })), &["\"expression\" is missing"])]
#[case::no_expressions(builtin("trigger.MultipleCronTriggerTimetable", &json!({ "expressions": [], "timezone": "UTC", "interval": 0.0 })), &["at least one cron expression"])]
#[case::nested_assets(builtin("assets.AssetOrTimeSchedule", &json!({ "asset_condition": {}, "timetable": builtin("simple.AssetTriggeredTimetable", &json!({ "asset_condition": { "__type": "asset_ref", "name": "a" } })) })), &["cannot be nested"])]
#[case::unknown_asset_kind(builtin("simple.AssetTriggeredTimetable", &json!({ "asset_condition": { "__type": "asset_xor" } })), &["asset_xor", "asset_any"])]
#[case::event_without_offset(builtin("events.EventsTimetable", &json!({ "event_dates": ["2026-02-01T00:00:00"] })), &["offset", "2026-02-01T00:00:00"])]
#[case::not_an_object(json!("@daily"), &["\"__type\"", "@daily"])]
fn an_error_says_what_is_wrong_and_what_would_be_right(#[case] timetable: Value, #[case] words: &[&str]) {
    let text = Timetable::from_serialized(&timetable).unwrap_err().to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[test]
fn an_expression_that_never_matches_is_read_but_has_no_run_and_says_why() {
    let timetable = Timetable::from_serialized(&cron("0 0 30 2 *", &json!("UTC"))).unwrap();
    let now = "2026-02-01T00:00:00Z".parse().unwrap();
    assert_eq!(timetable.next_run(None, &TimeRestriction::default(), now), None);
    let error = timetable.try_next_run(None, &TimeRestriction::default(), now).unwrap_err();
    assert!(error.to_string().contains("matches no time within fifty years"), "{error}");
}

#[test]
fn a_custom_class_is_kept_and_must_be_asked_in_python() {
    let data = json!({ "holidays": ["2026-01-01"] });
    let serialized = json!({ "__type": "company.calendar.Workdays", "__var": data });
    let timetable = Timetable::from_serialized(&serialized).unwrap();
    assert!(timetable.must_ask_python());
    assert_eq!(
        (timetable.summary().as_str(), timetable.type_name()),
        ("Workdays", "company.calendar.Workdays")
    );
    let now = "2026-02-01T00:00:00Z".parse().unwrap();
    let error = timetable.try_next_run(None, &TimeRestriction::default(), now).unwrap_err();
    assert_eq!(error, TimetableError::AskPython { classpath: "company.calendar.Workdays".into() });
}
