//! What each timetable answers, in tables that a person can check.

use chrono::{DateTime, NaiveDateTime, Utc};
use gust_model::DagRunType;
use gust_timetable::{
    AssetLeaf, CronExpression, DataInterval, LastRun, NextRun, TimeRestriction, Timetable, generate_run_id,
};
use rstest::rstest;
use serde_json::{Value, json};

fn at(text: &str) -> DateTime<Utc> {
    let text = if text.len() == 16 { format!("{text}:00") } else { text.to_owned() };
    text.parse::<NaiveDateTime>().unwrap().and_utc()
}

fn builtin(class: &str, data: &Value) -> Timetable {
    Timetable::from_serialized(&json!({ "__type": format!("airflow.timetables.{class}"), "__var": data }))
        .unwrap()
}

fn cron_trigger(expression: &str, zone: &str) -> Timetable {
    builtin(
        "trigger.CronTriggerTimetable",
        &json!({ "expression": expression, "timezone": zone, "interval": 0.0 }),
    )
}

fn catching_up_from(start: &str) -> TimeRestriction {
    TimeRestriction { earliest: Some(at(start)), latest: None, catchup: true }
}

fn due(timetable: &Timetable, restriction: &TimeRestriction, now: &str, count: usize) -> Vec<String> {
    let mut runs: Vec<NextRun> = Vec::new();
    while runs.len() < count {
        let Some(run) = timetable.next_run(runs.last().map(NextRun::as_last).as_ref(), restriction, at(now))
        else {
            break;
        };
        runs.push(run);
    }
    runs.iter().map(|run| run.run_after.format("%Y-%m-%dT%H:%M").to_string()).collect()
}

#[rstest]
#[case::either_day_field_suffices("0 0 13 * 5", "2026-02-01T00:00", "2026-02-06T00:00")]
#[case::a_starred_step_is_no_restriction_beside_a_full_range(
    "0 0 1-31 * */2",
    "2026-02-01T00:00",
    "2026-02-03T00:00"
)]
#[case::seven_is_sunday("0 0 * * 7", "2026-02-02T00:00", "2026-02-08T00:00")]
#[case::last_day("0 0 L * *", "2028-02-01T00:00", "2028-02-29T00:00")]
#[case::third_friday("0 0 * * 5#3", "2026-02-01T00:00", "2026-02-20T00:00")]
#[case::last_friday("0 0 * * L5", "2026-02-01T00:00", "2026-02-27T00:00")]
#[case::nth_restricts_both_halves("0 0 15 * 5#3", "2026-02-01T00:00", "2026-02-20T00:00")]
#[case::nearest_weekday("0 0 15W * *", "2026-02-01T00:00", "2026-02-16T00:00")]
#[case::nearest_weekday_stays_in_its_month("0 0 1W * *", "2026-07-31T00:00", "2026-08-03T00:00")]
#[case::months_wrap("0 0 1 nov-feb *", "2026-03-01T00:00", "2026-11-01T00:00")]
#[case::wrapped_step_lands_where_croniter_puts_it("0 22-6/3 * * *", "2026-02-01T22:00", "2026-02-02T02:00")]
#[case::equal_range_is_the_whole_field("7-7 0 * * *", "2026-02-01T00:00", "2026-02-01T00:01")]
#[case::step_from_the_last_value("59/15 * * * *", "2026-02-01T00:00", "2026-02-01T00:59")]
#[case::sixth_field_is_seconds("0 0 * * * 30", "2026-02-01T00:00", "2026-02-01T00:00:30")]
#[case::seventh_field_is_years("0 0 1 1 * 0 2030", "2026-02-01T00:00", "2030-01-01T00:00")]
#[case::midnight_alias("@Midnight", "2026-02-01T00:00", "2026-02-02T00:00")]
#[case::quarterly_preset("@quarterly", "2026-02-01T00:00", "2026-04-01T00:00")]
fn cron_reads_croniters_dialect(#[case] expression: &str, #[case] from: &str, #[case] next: &str) {
    let cron = CronExpression::parse(expression).unwrap();
    assert_eq!(cron.next_after(at(from).naive_utc()).unwrap().and_utc(), at(next));
}

#[rstest]
// Berlin puts its clocks forward on 2026-03-29 at 01:00 UTC, and back on 2026-10-25 at 01:00 UTC.
#[case::a_skipped_time_moves_on_by_the_gap("30 2 * * *", "2026-03-28T12:00", &["2026-03-29T01:30", "2026-03-30T00:30"])]
#[case::a_repeated_time_runs_the_second_time("30 2 * * *", "2026-10-24T12:00", &["2026-10-25T01:30", "2026-10-26T01:30"])]
#[case::every_hour_runs_in_the_repeated_hour_too(
    "0 * * * *", "2026-10-24T23:30", &["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"])]
#[case::every_second_hour_does_not("0 */2 * * *", "2026-10-24T21:30", &["2026-10-24T22:00", "2026-10-25T01:00", "2026-10-25T03:00"])]
#[case::midnight_stays_midnight("0 0 * * *", "2026-03-28T12:00", &["2026-03-28T23:00", "2026-03-29T22:00"])]
fn cron_crosses_clock_changes_as_airflow(
    #[case] expression: &str,
    #[case] start: &str,
    #[case] runs: &[&str],
) {
    let timetable = cron_trigger(expression, "Europe/Berlin");
    assert_eq!(due(&timetable, &catching_up_from(start), "2026-12-31T00:00", runs.len()), runs);
}

#[rstest]
#[case::catchup_makes_up_for_everything(true, Some("2026-02-01T00:00"), &["2026-02-01T00:00", "2026-02-02T00:00"])]
#[case::no_catchup_starts_with_the_latest(false, Some("2026-02-01T00:00"), &["2026-02-10T00:00", "2026-02-11T00:00"])]
#[case::start_date_ahead(false, Some("2026-03-01T06:00"), &["2026-03-02T00:00", "2026-03-03T00:00"])]
#[case::no_start_date(false, None, &["2026-02-11T00:00", "2026-02-12T00:00"])]
fn cron_trigger_starts_where_airflow_does(
    #[case] catchup: bool,
    #[case] start: Option<&str>,
    #[case] runs: &[&str],
) {
    let restriction = TimeRestriction { earliest: start.map(at), latest: None, catchup };
    assert_eq!(due(&cron_trigger("@daily", "UTC"), &restriction, "2026-02-10T12:00", 2), runs);
}

#[rstest]
#[case::always(json!(true), "2026-02-10T11:00", "2026-02-10T00:00")]
#[case::a_tenth_of_the_time_between_runs(json!(false), "2026-02-10T02:20", "2026-02-10T00:00")]
#[case::no_more_than_that(json!(false), "2026-02-10T02:30", "2026-02-11T00:00")]
#[case::within_so_many_seconds(json!(600.0), "2026-02-10T00:10", "2026-02-10T00:00")]
#[case::but_not_later(json!(600.0), "2026-02-10T00:11", "2026-02-11T00:00")]
#[case::a_whole_number_is_no_timedelta(json!(600), "2026-02-10T00:11", "2026-02-10T00:00")]
fn run_immediately_counts_where_there_is_no_start_date(
    #[case] setting: Value,
    #[case] now: &str,
    #[case] first: &str,
) {
    let data =
        json!({ "expression": "@daily", "timezone": "UTC", "interval": 0.0, "run_immediately": setting });
    let timetable = builtin("trigger.CronTriggerTimetable", &data);
    let restriction = TimeRestriction { catchup: true, ..TimeRestriction::default() };
    assert_eq!(due(&timetable, &restriction, now, 1), [first]);
}

#[test]
fn an_end_date_ends_the_runs_and_counts_itself() {
    let restriction =
        TimeRestriction { latest: Some(at("2026-02-03T00:00")), ..catching_up_from("2026-02-01T12:00") };
    let runs = due(&cron_trigger("@daily", "UTC"), &restriction, "2026-02-10T00:00", 9);
    assert_eq!(runs, ["2026-02-02T00:00", "2026-02-03T00:00"]);
}

#[test]
fn an_interval_timetable_runs_at_the_end_of_each_interval() {
    let timetable =
        builtin("interval.CronDataIntervalTimetable", &json!({ "expression": "@daily", "timezone": "UTC" }));
    let run =
        timetable.next_run(None, &catching_up_from("2026-02-01T12:00"), at("2026-02-10T00:00")).unwrap();
    assert_eq!(run.logical_date, Some(at("2026-02-02T00:00")));
    assert_eq!(
        run.data_interval,
        Some(DataInterval { start: at("2026-02-02T00:00"), end: at("2026-02-03T00:00") })
    );
    assert_eq!(run.run_after, at("2026-02-03T00:00"));
    let manual = timetable.manual_run_interval(at("2026-02-10T12:00")).unwrap();
    assert_eq!(manual, DataInterval { start: at("2026-02-09T00:00"), end: at("2026-02-10T00:00") });
}

#[test]
fn a_coarser_schedule_does_not_make_a_logical_date_twice() {
    let timetable =
        builtin("interval.CronDataIntervalTimetable", &json!({ "expression": "@daily", "timezone": "UTC" }));
    let hourly = LastRun {
        run_after: at("2026-02-01T01:00"),
        data_interval: Some(DataInterval { start: at("2026-02-01T00:00"), end: at("2026-02-01T01:00") }),
    };
    let run = timetable
        .next_run(Some(&hourly), &catching_up_from("2026-01-01T00:00"), at("2026-02-10T00:00"))
        .unwrap();
    assert_eq!(run.logical_date, Some(at("2026-02-02T00:00")));
}

#[test]
fn month_steps_clamp_once_and_stay_there() {
    let timetable = builtin("interval.DeltaDataIntervalTimetable", &json!({ "delta": { "months": 1 } }));
    let runs = due(&timetable, &catching_up_from("2026-01-31T00:00"), "2026-12-01T00:00", 3);
    assert_eq!(runs, ["2026-02-28T00:00", "2026-03-28T00:00", "2026-04-28T00:00"]);
}

#[test]
fn once_runs_at_the_start_date_or_now_and_never_again() {
    let timetable = builtin("simple.OnceTimetable", &json!({}));
    assert_eq!(
        due(&timetable, &catching_up_from("2026-01-31T00:00"), "2026-12-01T00:00", 3),
        ["2026-01-31T00:00"]
    );
    assert_eq!(due(&timetable, &TimeRestriction::default(), "2026-12-01T00:00", 3), ["2026-12-01T00:00"]);
    assert!(!timetable.is_periodic() && timetable.can_be_scheduled());
}

#[test]
fn continuous_follows_on_and_allows_one_active_run() {
    let timetable = builtin("simple.ContinuousTimetable", &json!({}));
    assert_eq!(timetable.active_runs_limit(), Some(1));
    let first =
        timetable.next_run(None, &catching_up_from("2026-01-31T00:00"), at("2026-02-01T00:00")).unwrap();
    assert_eq!(first.run_after, at("2026-02-01T00:00"));
    let next = timetable
        .next_run(Some(&first.as_last()), &catching_up_from("2026-01-31T00:00"), at("2026-02-01T00:07"))
        .unwrap();
    assert_eq!(
        next.data_interval,
        Some(DataInterval { start: at("2026-02-01T00:00"), end: at("2026-02-01T00:07") })
    );
}

#[test]
fn a_partition_run_has_a_key_in_local_time_and_no_interval() {
    let data = json!({ "expression": "0 0 * * *", "timezone": "Asia/Taipei", "run_immediately": false,
                       "run_offset": -1, "key_format": "%Y-%m-%d" });
    let timetable = builtin("trigger.CronPartitionTimetable", &data);
    let run =
        timetable.next_run(None, &catching_up_from("2026-02-01T00:00"), at("2026-02-10T00:00")).unwrap();
    assert_eq!(run.run_after, at("2026-02-01T16:00"));
    assert_eq!(run.partition_key.as_deref(), Some("2026-02-01"));
    assert_eq!((run.logical_date, run.data_interval), (None, None));
    let last = timetable.last_run(run.run_after, None, run.partition_key.as_deref()).unwrap();
    assert_eq!(last, run.as_last());
    let backfill = timetable.runs_between(at("2026-02-01T00:00"), at("2026-02-03T00:00"), 100).unwrap();
    let keys: Vec<&str> = backfill.iter().filter_map(|run| run.partition_key.as_deref()).collect();
    assert_eq!(keys, ["2026-02-01", "2026-02-02", "2026-02-03"]);
}

#[test]
fn a_backfill_takes_the_runs_of_its_span() {
    let timetable =
        builtin("interval.CronDataIntervalTimetable", &json!({ "expression": "@daily", "timezone": "UTC" }));
    let dates = |at_most| -> Vec<_> {
        let runs = timetable.runs_between(at("2026-02-01T00:00"), at("2026-02-03T00:00"), at_most).unwrap();
        runs.iter().filter_map(|run| run.logical_date).collect()
    };
    assert_eq!(dates(100), [at("2026-02-01T00:00"), at("2026-02-02T00:00"), at("2026-02-03T00:00")]);
    assert_eq!(dates(2).len(), 2);
}

fn assets() -> Value {
    json!({ "__type": "asset_any", "objects": [
        { "__type": "asset_all", "objects": [
            { "__type": "asset", "name": "a", "uri": "s3://a", "group": "asset", "extra": {} },
            { "__type": "asset_ref", "uri": "s3://b" } ] },
        { "__type": "asset_alias", "name": "c", "group": "asset" },
        { "__type": "asset_ref", "name": "d" } ] })
}

#[rstest]
#[case::nothing(&[], false)]
#[case::half_of_all(&["a"], false)]
#[case::all(&["a", "s3://b"], true)]
#[case::an_alias(&["c"], true)]
#[case::a_name(&["d"], true)]
fn asset_conditions_are_fulfilled(#[case] updated: &[&str], #[case] fulfilled: bool) {
    let timetable = builtin("simple.AssetTriggeredTimetable", &json!({ "asset_condition": assets() }));
    let condition = timetable.asset_condition().unwrap();
    let mut leaf = |leaf: AssetLeaf<'_>| match leaf {
        AssetLeaf::Asset(asset) => updated.contains(&asset.name.as_str()),
        AssetLeaf::Alias(name) | AssetLeaf::NameRef(name) | AssetLeaf::UriRef(name) => {
            updated.contains(&name)
        }
    };
    assert_eq!(condition.is_fulfilled(&mut leaf), fulfilled);
    assert_eq!(condition.leaves().len(), 4);
    let shown = json!({ "any": [
        { "all": [{ "asset": { "uri": "s3://a", "name": "a", "group": "asset" } }, { "asset_ref": { "uri": "s3://b" } }] },
        { "alias": { "name": "c", "group": "asset" } },
        { "asset_ref": { "name": "d" } } ] });
    assert_eq!(condition.as_expression(), shown);
}

#[test]
fn asset_or_time_answers_for_its_timetable_of_time() {
    let inner = json!({ "__type": "airflow.timetables.trigger.CronTriggerTimetable",
                        "__var": { "expression": "@daily", "timezone": "UTC", "interval": 0.0 } });
    let timetable =
        builtin("assets.AssetOrTimeSchedule", &json!({ "asset_condition": assets(), "timetable": inner }));
    assert_eq!(
        due(&timetable, &catching_up_from("2026-02-01T12:00"), "2026-02-10T00:00", 1),
        ["2026-02-02T00:00"]
    );
    assert_eq!(timetable.summary(), "Asset or 0 0 * * *");
    assert_eq!(timetable.description(), "Triggered by assets or At 00:00");
    assert!(timetable.is_asset_triggered() && timetable.is_periodic());
}

#[test]
fn the_sdks_own_form_of_events_is_read_too() {
    let dates = json!(["2026-02-01T10:00:00+01:00", "2026-02-05T00:00:00Z"]);
    let data = json!({ "event_dates": dates, "restrict_to_events": true, "description": null });
    let timetable = builtin("events.EventsTimetable", &data);
    assert_eq!(
        due(&timetable, &catching_up_from("2026-02-01T00:00"), "2026-02-01T00:00", 9),
        ["2026-02-01T09:00", "2026-02-05T00:00"]
    );
    assert_eq!(timetable.summary(), "2 events");
    assert_eq!(
        timetable.manual_run_interval(at("2026-02-04T00:00")).unwrap(),
        DataInterval::exact(at("2026-02-01T09:00"))
    );
}

#[test]
fn run_ids_read_as_airflows() {
    let daily = cron_trigger("@daily", "UTC");
    let due = at("2026-02-01T00:00");
    let id =
        |timetable: &Timetable, run_type| timetable.generate_run_id(run_type, due, Some("k"), "Ab3dEf7h");
    assert_eq!(id(&daily, DagRunType::Scheduled), "scheduled__2026-02-01T00:00:00+00:00");
    let late = at("2026-02-01T00:00:00.000500");
    assert_eq!(
        daily.generate_run_id(DagRunType::Manual, late, None, ""),
        "manual__2026-02-01T00:00:00.000500+00:00"
    );
    let data = json!({ "expression": "@daily", "timezone": "UTC", "run_offset": 0, "key_format": "%Y" });
    let partition = builtin("trigger.CronPartitionTimetable", &data);
    assert_eq!(id(&partition, DagRunType::Scheduled), "scheduled__2026-02-01T00:00:00+00:00__k__Ab3dEf7h");
    let by_assets = generate_run_id(DagRunType::AssetTriggered, None, due, "Ab3dEf7h");
    assert_eq!(by_assets, "asset_triggered__2026-02-01T00:00:00+00:00_Ab3dEf7h");
}
