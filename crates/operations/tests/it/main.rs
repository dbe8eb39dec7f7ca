//! Operations over the metastore in memory: a daily DAG of setup, work, report and teardown, with a run a day.

#![expect(clippy::unwrap_used, reason = "A test ends at the first thing that is not as it should be.")]

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gust_model::{
    DagRunId, DagRunState, DagVersionId, Epoch, MapIndex, RunId, TaskInstanceId, TaskInstanceState as S,
    TriggeredBy,
    dag::{Dag, canonical_json, stable_hash},
    record::{DagRecord, DagRun, DagVersion, TaskInstance},
};
use gust_operations::{
    ClearRequest, MarkRequest, OperationError, Ports, TriggerRequest, clear_task_instances,
    set_dag_run_state, set_task_instance_state, trigger_dag_run,
};
use gust_ports::{
    Ids, Metastore,
    memory::{ManualClock, MemoryMetastore, MemoryWakeups, SequentialIds},
    metastore::TxMode,
};
use serde_json::Value;

struct World {
    metastore: MemoryMetastore,
    wakeups: MemoryWakeups,
    ids: SequentialIds,
}

const TASKS: [&str; 4] = ["up", "work", "report", "down"];

fn at(day: u32) -> DateTime<Utc> {
    format!("2026-02-{day:02}T00:00:00Z").parse().unwrap()
}

fn run_id(day: u32) -> RunId {
    format!("scheduled__2026-02-{day:02}T00:00:00+00:00").into()
}

impl World {
    fn ports(&self) -> Ports<'_> {
        Ports { metastore: &self.metastore, wakeups: &self.wakeups, ids: &self.ids }
    }

    /// Runs of the first three days, each with these states of up, work, report and down.
    async fn new(state: DagRunState, states: [S; 4]) -> Self {
        let clock = Arc::new(ManualClock::new(at(20)));
        let world = Self {
            metastore: MemoryMetastore::new(clock),
            wakeups: MemoryWakeups::new(64),
            ids: SequentialIds::new(3),
        };
        let serialized: Value = serde_json::from_str(include_str!("fixtures/etl.json")).unwrap();
        let dag = Dag::from_serialized(&serialized).unwrap();
        let hash = stable_hash(&serialized);
        let version = DagVersion {
            id: DagVersionId(world.ids.fresh()),
            dag_id: dag.dag_id.clone(),
            version_number: 1,
            bundle_name: "dags".into(),
            bundle_version: Some("v1".into()),
            hash: hash.clone(),
            created_at: at(1),
        };
        let mut tx = world.metastore.begin(TxMode::Write).await.unwrap();
        tx.put_serialized_dag(&hash, &canonical_json(&serialized)).await.unwrap();
        tx.put_dag(&record(&dag, &version)).await.unwrap();
        tx.insert_dag_version(&version).await.unwrap();
        for day in 1..=3 {
            let run = run(&world.ids, &version, day, state);
            assert!(tx.insert_dag_run(&run).await.unwrap());
            let rows: Vec<_> = TASKS
                .iter()
                .zip(states)
                .map(|(task, state)| task_instance(&world.ids, &run, task, state))
                .collect();
            tx.insert_task_instances(&rows).await.unwrap();
        }
        tx.commit().await.unwrap();
        world
    }

    async fn states(&self, day: u32) -> [S; 4] {
        let mut tx = self.metastore.begin(TxMode::Read).await.unwrap();
        let run = tx.dag_run(&"etl".into(), &run_id(day)).await.unwrap().unwrap();
        let rows = tx.task_instances_of(run.id, &[]).await.unwrap();
        TASKS.map(|task| rows.iter().find(|row| row.task_id == task).unwrap().state)
    }

    async fn run(&self, day: u32) -> DagRun {
        let mut tx = self.metastore.begin(TxMode::Read).await.unwrap();
        tx.dag_run(&"etl".into(), &run_id(day)).await.unwrap().unwrap()
    }
}

fn record(dag: &Dag, version: &DagVersion) -> DagRecord {
    DagRecord {
        dag_id: dag.dag_id.clone(),
        dag_display_name: None,
        bundle_name: "dags".into(),
        bundle_version: Some("v2".into()),
        relative_fileloc: "etl.py".into(),
        current_version_id: version.id,
        is_paused: false,
        is_stale: false,
        has_import_errors: false,
        description: None,
        owners: String::new(),
        tags: Vec::new(),
        timetable_summary: None,
        timetable_description: None,
        is_scheduled: true,
        max_active_runs: 16,
        max_active_tasks: 16,
        max_consecutive_failed_dag_runs: 0,
        next_run: None,
        asset_expression: Value::Null,
        last_parsed_at: at(1),
        last_parse_duration: 0.1,
    }
}

fn run(ids: &dyn Ids, version: &DagVersion, day: u32, state: DagRunState) -> DagRun {
    DagRun {
        id: DagRunId(ids.fresh()),
        dag_id: "etl".into(),
        run_id: run_id(day),
        run_type: gust_model::DagRunType::Scheduled,
        state,
        logical_date: Some(at(day)),
        data_interval_start: Some(at(day)),
        data_interval_end: Some(at(day + 1)),
        run_after: at(day + 1),
        queued_at: at(day + 1),
        start_date: Some(at(day + 1)),
        end_date: state.is_finished().then(|| at(day + 2)),
        conf: Value::Null,
        triggered_by: Some(TriggeredBy::Timetable),
        triggering_user: None,
        dag_version_id: version.id,
        bundle_version: version.bundle_version.clone(),
        clear_number: 0,
        backfill_id: None,
        partition_key: None,
        note: None,
        unfinished_count: 0,
        under_way_count: 0,
        is_expanded: true,
        is_dirty: false,
        due_at: None,
        last_scheduling_decision: None,
        change_seq: 0,
    }
}

fn task_instance(ids: &dyn Ids, run: &DagRun, task: &str, state: S) -> TaskInstance {
    TaskInstance {
        id: TaskInstanceId(ids.fresh()),
        dag_run_id: run.id,
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        task_id: task.into(),
        map_index: MapIndex::UNMAPPED,
        state,
        accounted_state: state,
        is_dirty: false,
        change_seq: 0,
        try_number: 1,
        max_tries: 1,
        epoch: Epoch(1),
        lease: None,
        scheduled_at: None,
        queued_at: None,
        resend_at: None,
        send_count: 0,
        start_date: Some(run.run_after),
        end_date: state.is_finished().then_some(run.run_after),
        due_at: None,
        pool: "default_pool".into(),
        pool_slots: 1,
        queue: "default".into(),
        priority_weight: 1,
        executor: None,
        operator: "EmptyOperator".into(),
        operator_name: None,
        task_display_name: None,
        rendered_map_index: None,
        hostname: None,
        pid: None,
        next_method: None,
        next_kwargs: Value::Null,
        trigger_id: None,
        retry_delay_override: None,
        retry_reason: None,
        dag_version_id: run.dag_version_id,
        note: None,
        updated_at: run.run_after,
    }
}

fn mark(day: u32, task: &str, state: S) -> MarkRequest {
    MarkRequest {
        dag_id: "etl".into(),
        run_id: run_id(day),
        task_id: task.into(),
        map_indexes: None,
        state,
        with_upstream: false,
        with_downstream: false,
        with_past: false,
        with_future: false,
        dry_run: false,
    }
}

#[tokio::test]
async fn a_cleared_task_brings_its_setup_and_teardown_along() {
    let world = World::new(DagRunState::Success, [S::Success; 4]).await;
    let request = ClearRequest {
        tasks: Some(vec![("work".into(), None)]),
        ..ClearRequest::of_run("etl".into(), run_id(2))
    };
    let rows = clear_task_instances(world.ports(), request).await.unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(world.states(2).await, [S::None, S::None, S::Success, S::None]);
    assert_eq!(world.states(1).await, [S::Success; 4]);
    let work = rows.iter().find(|row| row.task_id == "work").unwrap();
    assert_eq!((work.max_tries, work.epoch, work.is_dirty), (2, Epoch(2), true));
    let run = world.run(2).await;
    assert_eq!(
        (run.state, run.is_dirty, run.clear_number, run.end_date),
        (DagRunState::Queued, true, 1, None)
    );
}

#[tokio::test]
async fn a_clear_may_reach_past_and_future_runs() {
    for (past, future, expected) in [(true, false, [true, true, false]), (false, true, [false, true, true])] {
        let world =
            World::new(DagRunState::Failed, [S::Success, S::Failed, S::UpstreamFailed, S::Success]).await;
        let request = ClearRequest {
            only_failed: true,
            with_past: past,
            with_future: future,
            ..ClearRequest::of_run("etl".into(), run_id(2))
        };
        clear_task_instances(world.ports(), request).await.unwrap();
        for (day, is_cleared) in (1..=3).zip(expected) {
            assert_eq!(world.states(day).await[1] == S::None, is_cleared, "day {day}");
            assert_eq!(world.run(day).await.state == DagRunState::Queued, is_cleared, "day {day}");
        }
    }
}

#[tokio::test]
async fn a_clear_on_the_newest_version_takes_its_bundle() {
    let world = World::new(DagRunState::Success, [S::Success; 4]).await;
    let request =
        ClearRequest { run_on_latest_version: Some(true), ..ClearRequest::of_run("etl".into(), run_id(1)) };
    clear_task_instances(world.ports(), request).await.unwrap();
    assert_eq!(world.run(1).await.bundle_version, Some("v2".into()));
    assert_eq!(world.run(2).await.bundle_version, Some("v1".into()));
}

#[tokio::test]
async fn a_mark_resumes_what_failed_after_it_and_requeues_the_run() {
    let world = World::new(DagRunState::Failed, [S::Success, S::Failed, S::UpstreamFailed, S::Success]).await;
    set_task_instance_state(world.ports(), mark(2, "work", S::Success)).await.unwrap();
    assert_eq!(world.states(2).await, [S::Success, S::Success, S::None, S::Success]);
    assert_eq!(world.run(2).await.state, DagRunState::Queued);
    assert_eq!(world.states(3).await[1], S::Failed);
}

#[tokio::test]
async fn a_mark_reaches_as_far_as_it_is_asked_to() {
    let world = World::new(DagRunState::Failed, [S::Success, S::Failed, S::UpstreamFailed, S::Success]).await;
    let request = MarkRequest { with_downstream: true, with_past: true, ..mark(2, "work", S::Success) };
    let planned =
        set_task_instance_state(world.ports(), MarkRequest { dry_run: true, ..request.clone() }).await;
    assert_eq!(planned.unwrap().len(), 4);
    assert_eq!(world.states(2).await[1], S::Failed);
    set_task_instance_state(world.ports(), request).await.unwrap();
    for (day, expected) in [(1, S::Success), (2, S::Success), (3, S::Failed)] {
        assert_eq!(world.states(day).await[1], expected, "day {day}");
    }
}

#[tokio::test]
async fn a_mark_of_no_end_state_is_refused() {
    let world = World::new(DagRunState::Running, [S::None; 4]).await;
    let refused = set_task_instance_state(world.ports(), mark(1, "work", S::Running)).await;
    assert!(matches!(refused, Err(OperationError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn ending_a_run_leaves_its_teardown_to_run_and_the_run_going_until_then() {
    let world = World::new(DagRunState::Running, [S::Success, S::Running, S::None, S::None]).await;
    let run = set_dag_run_state(world.ports(), "etl".into(), run_id(1), DagRunState::Failed).await.unwrap();
    assert_eq!(run.state, DagRunState::Running);
    assert_eq!(world.states(1).await, [S::Success, S::Failed, S::Skipped, S::None]);
    let world = World::new(DagRunState::Running, [S::Success, S::Running, S::None, S::Success]).await;
    let run = set_dag_run_state(world.ports(), "etl".into(), run_id(1), DagRunState::Success).await.unwrap();
    assert_eq!((run.state, run.end_date), (DagRunState::Success, Some(at(20))));
}

#[tokio::test]
async fn a_trigger_makes_the_run_that_the_scheduler_would_start() {
    let world = World::new(DagRunState::Success, [S::Success; 4]).await;
    let request = TriggerRequest::new("etl".into(), TriggeredBy::Cli);
    let run = trigger_dag_run(world.ports(), request.clone()).await.unwrap();
    assert_eq!(run.run_id, "manual__2026-02-20T00:00:00+00:00");
    assert_eq!((run.state, run.is_expanded, run.is_dirty), (DagRunState::Queued, false, true));
    assert_eq!(run.bundle_version, Some("v2".into()));
    let again = trigger_dag_run(world.ports(), request).await;
    assert!(matches!(again, Err(OperationError::Exists(_))), "{again:?}");
    let dated = TriggerRequest {
        logical_date: Some(at(10)),
        run_id: Some("mine".into()),
        ..TriggerRequest::new("etl".into(), TriggeredBy::RestApi)
    };
    let run = trigger_dag_run(world.ports(), dated).await.unwrap();
    assert_eq!((run.data_interval_start, run.data_interval_end), (Some(at(10)), Some(at(10))));
}
