//! Making runs, starting them, and pausing DAGs that fail.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use gust_model::{
    AssetId, BackfillId, DagRunState, DagVersionId,
    dag::Dag,
    record::{Asset, DagRecord, QueuedAssetEvent},
};
use gust_planner::{
    RunCreation, RunCreationFacts, RunningCounts, StartDecision, StartRuns,
    assets::{AssetFacts, create_asset_run},
    create_due_run, next_run_of, should_pause,
};
use gust_timetable::Timetable;
use rstest::rstest;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    build::{dag, plain},
    world::{World, midnight},
};

fn hourly(catchup: bool) -> (Dag, Timetable) {
    let timetable = json!({
        "__type": "airflow.timetables.trigger.DeltaTriggerTimetable",
        "__var": { "delta": 3600.0, "interval": 0.0 },
    });
    let start = (midnight() - TimeDelta::hours(3)).timestamp();
    let serialized =
        dag("hourly").with("catchup", catchup).with("start_date", start).task("t", &[], plain()).done();
    (Dag::from_serialized(&serialized).unwrap(), Timetable::from_serialized(&timetable).unwrap())
}

fn record(dag: &Dag) -> DagRecord {
    DagRecord {
        dag_id: dag.dag_id.clone(),
        dag_display_name: None,
        bundle_name: "b".into(),
        bundle_version: None,
        relative_fileloc: "test.py".into(),
        current_version_id: DagVersionId(Uuid::from_u128(2)),
        is_paused: false,
        is_stale: false,
        has_import_errors: false,
        description: None,
        owners: "airflow".into(),
        tags: Vec::new(),
        timetable_summary: None,
        timetable_description: None,
        is_scheduled: true,
        max_active_runs: 2,
        max_active_tasks: 16,
        max_consecutive_failed_dag_runs: 0,
        next_run: None,
        asset_expression: Value::Null,
        last_parsed_at: midnight(),
        last_parse_duration: 0.1,
    }
}

#[test]
fn missed_runs_are_made_up_for_as_far_as_the_limit_allows() {
    let (dag, timetable) = hourly(true);
    let mut record = record(&dag);
    record.next_run = next_run_of(&dag, &timetable, None, midnight()).unwrap();
    let mut made = Vec::new();
    loop {
        let facts = RunCreationFacts {
            record: &record,
            dag: &dag,
            timetable: &timetable,
            active_runs: u32::try_from(made.len()).unwrap(),
            exists_already: false,
            random: "abcdefgh",
        };
        match create_due_run(&facts, midnight()) {
            RunCreation::Create { run, next_run, .. } => {
                made.push(run);
                record.next_run = next_run;
            }
            RunCreation::AtLimit => break,
            other => panic!("{other:?}"),
        }
    }
    let first = midnight() - TimeDelta::hours(3);
    assert_eq!(
        made.iter().map(|run| run.run_after).collect::<Vec<_>>(),
        [first, first + TimeDelta::hours(1)]
    );
    assert_eq!(made[0].run_id, "scheduled__2025-12-31T21:00:00+00:00");
    assert_eq!(made[0].state, DagRunState::Queued);
}

#[test]
fn a_run_that_exists_already_is_passed_by() {
    let (dag, timetable) = hourly(true);
    let mut record = record(&dag);
    record.next_run = next_run_of(&dag, &timetable, None, midnight()).unwrap();
    let facts = RunCreationFacts {
        record: &record,
        dag: &dag,
        timetable: &timetable,
        active_runs: 2,
        exists_already: true,
        random: "abcdefgh",
    };
    let RunCreation::Skip { next_run, .. } = create_due_run(&facts, midnight()) else {
        panic!("it is passed by")
    };
    assert_eq!(next_run.unwrap().run_after, midnight() - TimeDelta::hours(2));
}

#[rstest]
#[case::paused(|record: &mut DagRecord| record.is_paused = true)]
#[case::stale(|record: &mut DagRecord| record.is_stale = true)]
#[case::broken(|record: &mut DagRecord| record.has_import_errors = true)]
#[case::nothing_next(|record: &mut DagRecord| record.next_run = None)]
fn no_run_is_made_of_a_dag_that_may_not_run(#[case] change: fn(&mut DagRecord)) {
    let (dag, timetable) = hourly(false);
    let mut record = record(&dag);
    record.next_run = next_run_of(&dag, &timetable, None, midnight()).unwrap();
    change(&mut record);
    let facts = RunCreationFacts {
        record: &record,
        dag: &dag,
        timetable: &timetable,
        active_runs: 0,
        exists_already: false,
        random: "abcdefgh",
    };
    assert_eq!(create_due_run(&facts, midnight() + TimeDelta::days(1)), RunCreation::NotDue);
}

#[test]
fn runs_start_under_their_dags_and_their_backfills_own_limits() {
    let run = World::new(&dag("d").task("t", &[], plain()).done()).run;
    let mut backfilled = run.clone();
    backfilled.backfill_id = Some(BackfillId(Uuid::from_u128(7)));
    let mut running = RunningCounts::default();
    running.set(run.dag_id.clone(), None, 1);
    let mut starts = StartRuns::begin(running);
    assert_eq!(starts.decide(&run, 2), StartDecision::Start(run.id));
    assert_eq!(starts.decide(&run, 2), StartDecision::AtLimit(run.id));
    assert_eq!(starts.decide(&backfilled, 1), StartDecision::Start(run.id));
    assert_eq!(starts.decide(&backfilled, 1), StartDecision::AtLimit(run.id));
    assert_eq!(starts.decide(&run, 0), StartDecision::Start(run.id), "0 is no limit");
}

#[test]
fn a_dag_is_paused_once_its_last_runs_all_failed() {
    use DagRunState::{Failed, Running, Success};
    assert!(should_pause(&[Failed, Failed, Success], 2));
    assert!(!should_pause(&[Failed, Success], 2));
    assert!(!should_pause(&[Failed], 2), "there are not that many yet");
    assert!(!should_pause(&[Running, Failed], 2));
    assert!(!should_pause(&[Failed, Failed], 0), "0 is never");
}

fn asset(id: u128, name: &str) -> Asset {
    Asset {
        id: AssetId(Uuid::from_u128(id)),
        name: name.to_owned(),
        uri: name.to_owned(),
        group: "asset".to_owned(),
        extra: Value::Null,
        is_active: true,
    }
}

#[rstest]
#[case::all_of_two_one_updated("asset_all", &[1], false)]
#[case::all_of_two_both_updated("asset_all", &[1, 2], true)]
#[case::any_of_two_one_updated("asset_any", &[2], true)]
#[case::nothing_updated("asset_any", &[], false)]
fn assets_make_a_run_once_their_condition_is_fulfilled(
    #[case] kind: &str,
    #[case] updated: &[u128],
    #[case] expected: bool,
) {
    let one =
        |name: &str| json!({ "__type": "asset", "name": name, "uri": name, "group": "asset", "extra": {} });
    let timetable = Timetable::from_serialized(&json!({
        "__type": "airflow.timetables.simple.AssetTriggeredTimetable",
        "__var": { "asset_condition": { "__type": kind, "objects": [one("x"), one("y")] } },
    }))
    .unwrap();
    let (dag, _) = hourly(false);
    let record = record(&dag);
    let queued: Vec<QueuedAssetEvent> = updated
        .iter()
        .map(|id| QueuedAssetEvent {
            dag_id: dag.dag_id.clone(),
            asset_id: AssetId(Uuid::from_u128(*id)),
            created_at: midnight() + TimeDelta::seconds(i64::try_from(*id).unwrap()),
        })
        .collect();
    let assets = [asset(1, "x"), asset(2, "y")];
    let aliases = BTreeMap::new();
    let facts = AssetFacts {
        record: &record,
        timetable: &timetable,
        queued: &queued,
        assets: &assets,
        aliases: &aliases,
        active_runs: 0,
        random: "abcdefgh",
    };
    let run = create_asset_run(&facts);
    assert_eq!(run.is_some(), expected);
    if let Some(run) = run {
        assert_eq!(Some(run.run.run_after), queued.iter().map(|note| note.created_at).max());
        assert_eq!(run.used, queued.iter().map(|note| note.asset_id).collect::<BTreeSet<_>>());
        assert_eq!(run.run.logical_date, None);
    }
    let full = AssetFacts { active_runs: 2, ..facts };
    assert_eq!(create_asset_run(&full), None, "as many runs are active as may be");
}
