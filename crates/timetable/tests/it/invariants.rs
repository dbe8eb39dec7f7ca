//! What holds for every timetable, whatever it says.

use chrono::{DateTime, Utc};
use gust_timetable::{NextRun, TimeRestriction, Timetable};
use proptest::prelude::*;
use serde_json::{Value, json};

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "America/St_Johns",
];

fn cron() -> impl Strategy<Value = String> {
    let minute = prop::sample::select(vec!["*", "0", "30", "*/7", "1-5", "0,20,40", "59/15", "45-15"]);
    let hour = prop::sample::select(vec!["*", "0", "1", "2", "3", "*/2", "9-17", "22-2"]);
    let day = prop::sample::select(vec!["*", "1", "31", "L", "28-31", "15W", "*/10"]);
    let month = prop::sample::select(vec!["*", "*", "*", "1-6", "nov-feb"]);
    let weekday = prop::sample::select(vec!["*", "*", "SUN", "1-5", "5#3", "L5", "sat-mon"]);
    (minute, hour, day, month, weekday).prop_map(|(a, b, c, d, e)| format!("{a} {b} {c} {d} {e}"))
}

fn delta() -> impl Strategy<Value = Value> {
    prop_oneof![
        (60u32..2_000_000).prop_map(|seconds| json!(f64::from(seconds))),
        (1u32..20).prop_map(|months| json!({ "months": months })),
        (1u32..40, 0u32..24).prop_map(|(days, hours)| json!({ "days": days, "hours": hours })),
    ]
}

fn timetable() -> impl Strategy<Value = Timetable> {
    let zone = prop::sample::select(ZONES.to_vec());
    let typed = |class: &str, data: Value| {
        let serialized = json!({ "__type": format!("airflow.timetables.{class}"), "__var": data });
        Timetable::from_serialized(&serialized).expect("a valid timetable")
    };
    prop_oneof![
        (cron(), zone.clone()).prop_map(move |(expression, zone)| {
            typed("interval.CronDataIntervalTimetable", json!({ "expression": expression, "timezone": zone }))
        }),
        (cron(), zone.clone()).prop_map(move |(expression, zone)| {
            let data = json!({ "expression": expression, "timezone": zone, "interval": 3600.0 });
            typed("trigger.CronTriggerTimetable", data)
        }),
        (prop::collection::vec(cron(), 1..4), zone.clone()).prop_map(move |(expressions, zone)| {
            let data = json!({ "expressions": expressions, "timezone": zone, "interval": 0.0 });
            typed("trigger.MultipleCronTriggerTimetable", data)
        }),
        (cron(), zone, -2i64..3).prop_map(move |(expression, zone, offset)| {
            let data = json!({ "expression": expression, "timezone": zone, "run_offset": offset, "key_format": "%c" });
            typed("trigger.CronPartitionTimetable", data)
        }),
        delta().prop_map(move |delta| typed("interval.DeltaDataIntervalTimetable", json!({ "delta": delta }))),
        delta()
            .prop_map(move |delta| typed("trigger.DeltaTriggerTimetable", json!({ "delta": delta, "interval": 0.0 }))),
    ]
}

fn instant() -> impl Strategy<Value = DateTime<Utc>> {
    // 2024 to 2028, to the minute.
    (0i64..2_600_000)
        .prop_map(|minutes| DateTime::from_timestamp(1_704_067_200 + minutes * 60, 0).expect("in range"))
}

fn restriction() -> impl Strategy<Value = TimeRestriction> {
    let latest = prop::option::weighted(0.3, instant());
    (prop::option::weighted(0.8, instant()), latest, any::<bool>())
        .prop_map(|(earliest, latest, catchup)| TimeRestriction { earliest, latest, catchup })
}

fn series(timetable: &Timetable, restriction: &TimeRestriction, now: DateTime<Utc>) -> Vec<NextRun> {
    let mut runs: Vec<NextRun> = Vec::new();
    while runs.len() < 8 {
        match timetable.next_run(runs.last().map(NextRun::as_last).as_ref(), restriction, now) {
            Some(run) => runs.push(run),
            None => break,
        }
    }
    runs
}

proptest! {
    #[test]
    fn runs_strictly_increase(timetable in timetable(), restriction in restriction(), now in instant()) {
        for pair in series(&timetable, &restriction, now).windows(2) {
            prop_assert!(pair[0].run_after < pair[1].run_after, "{:?}", pair);
        }
    }

    #[test]
    fn the_same_question_gets_the_same_answer(timetable in timetable(), restriction in restriction(), now in instant()) {
        prop_assert_eq!(series(&timetable, &restriction, now), series(&timetable, &restriction, now));
    }

    #[test]
    fn runs_keep_to_the_start_and_end_dates(timetable in timetable(), restriction in restriction(), now in instant()) {
        for run in series(&timetable, &restriction, now) {
            // An interval timetable bounds where the interval starts, a trigger timetable when the run is due.
            let bounded = match &timetable {
                Timetable::CronDataInterval(_) | Timetable::DeltaDataInterval(_) => run.logical_date.unwrap(),
                _ => run.run_after,
            };
            prop_assert!(restriction.earliest.is_none_or(|earliest| bounded >= earliest));
            prop_assert!(restriction.latest.is_none_or(|latest| bounded <= latest));
        }
    }

    #[test]
    fn without_catchup_an_earlier_clock_never_answers_a_later_run(
        timetable in timetable(), start in instant(), now in instant(), minutes in 0i64..100_000,
    ) {
        // Two schedulers whose clocks differ agree on what comes first, or the one behind asks for an earlier run.
        let restriction = TimeRestriction { earliest: Some(start), latest: None, catchup: false };
        let later = now + chrono::Duration::minutes(minutes);
        let (behind, ahead) = (timetable.next_run(None, &restriction, now), timetable.next_run(None, &restriction, later));
        if let (Some(behind), Some(ahead), false) = (behind, ahead, matches!(timetable, Timetable::MultipleCronTrigger(_))) {
            prop_assert!(behind.run_after <= ahead.run_after);
        }
    }

    #[test]
    fn a_manual_interval_ends_by_its_run(timetable in timetable(), now in instant()) {
        // Some of the expressions never match, such as a Sunday that is the weekday nearest the 15th.
        if let Ok(interval) = timetable.manual_run_interval(now) {
            prop_assert!(interval.start <= interval.end && interval.end <= now);
        }
    }

    #[test]
    fn no_text_makes_the_cron_reader_panic(text in "[-0-9*/,#?LWlwhr@a-z ]{0,24}") {
        if let Ok(cron) = gust_timetable::CronExpression::parse(&text) {
            let from = DateTime::from_timestamp(1_704_067_200, 0).unwrap().naive_utc();
            if let Ok(next) = cron.next_after(from) {
                prop_assert!(next > from);
            }
            let _ = cron.description();
        }
    }
}
