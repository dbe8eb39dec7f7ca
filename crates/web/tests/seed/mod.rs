//! Fills a metastore and an object store with DAGs and runs in all states, for looking at pages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "A test's own data is right, or the test fails here."
)]
#![allow(dead_code, reason = "The example and the unit tests each use a part of it.")]

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use gust_model::{
    AssetId, AttemptId, DagId, DagRunId, DagRunState, DagRunType, DagVersionId, Epoch, EventId, MapIndex,
    RunId, TaskInstanceId, TaskInstanceState, TriggeredBy,
    dag::{Dag, stable_hash},
    record::{
        Asset, AssetEvent, AssetReference, AssetReferenceKind, Component, ComponentKind, ConnectionRecord,
        DagRecord, DagRun, DagVersion, Lease, NextRun, Pool, TaskInstance, Timestamp, VariableRecord, XCom,
        XComKey,
    },
};
use gust_ports::{Ids, Metastore, ObjectStore, Tx, metastore::TxMode};
use gust_task_log::{ChunkName, TryLog, encode_chunk};
use serde_json::{Value, json};

/// The serialized DAGs of the fixture.
pub fn dags() -> Vec<Value> {
    serde_json::from_str(include_str!("../fixtures/dags.json")).unwrap()
}

/// A repeatable sequence of numbers.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// Where a seed goes.
pub struct Seeder {
    pub metastore: Arc<dyn Metastore>,
    pub objects: Arc<dyn ObjectStore>,
    pub ids: Arc<dyn Ids>,
    pub now: Timestamp,
}

impl Seeder {
    pub async fn begin(&self) -> Box<dyn Tx> {
        self.metastore.begin(TxMode::Write).await.unwrap()
    }

    /// Stores a DAG and returns its graph and version.
    pub async fn dag(&self, tx: &mut dyn Tx, serialized: &Value) -> (Dag, DagVersionId) {
        let dag = Dag::from_serialized(serialized).unwrap();
        let hash = stable_hash(serialized);
        let version = DagVersionId(self.ids.fresh());
        tx.put_serialized_dag(&hash, &serialized.to_string()).await.unwrap();
        let timetable = gust_timetable::Timetable::from_serialized(&dag.timetable).ok();
        let scheduled = timetable.as_ref().is_some_and(gust_timetable::Timetable::is_periodic);
        tx.put_dag(&DagRecord {
            dag_id: dag.dag_id.clone(),
            dag_display_name: dag.display_name.clone(),
            bundle_name: "dags-folder".into(),
            bundle_version: None,
            relative_fileloc: dag.relative_fileloc.clone().unwrap_or_default(),
            current_version_id: version,
            is_paused: false,
            is_stale: false,
            has_import_errors: false,
            description: dag.description.clone(),
            owners: dag.owners(),
            tags: dag.tags.iter().cloned().collect(),
            timetable_summary: timetable.as_ref().map(gust_timetable::Timetable::summary),
            timetable_description: timetable.as_ref().map(gust_timetable::Timetable::description),
            is_scheduled: scheduled,
            max_active_runs: dag.max_active_runs,
            max_active_tasks: dag.max_active_tasks,
            max_consecutive_failed_dag_runs: 0,
            next_run: scheduled.then(|| NextRun {
                run_after: self.now + TimeDelta::hours(5),
                logical_date: None,
                data_interval_start: None,
                data_interval_end: None,
                partition_key: None,
            }),
            asset_expression: Value::Null,
            last_parsed_at: self.now,
            last_parse_duration: 0.031,
        })
        .await
        .unwrap();
        tx.insert_dag_version(&DagVersion {
            id: version,
            dag_id: dag.dag_id.clone(),
            version_number: 1,
            bundle_name: "dags-folder".into(),
            bundle_version: None,
            hash,
            created_at: self.now - TimeDelta::days(3),
        })
        .await
        .unwrap();
        (dag, version)
    }

    /// A run that was made at a moment.
    pub fn run(&self, dag_id: &DagId, version: DagVersionId, at: Timestamp, state: DagRunState) -> DagRun {
        let is_manual = at.timestamp() % 3 == 0;
        let kind = if is_manual { DagRunType::Manual } else { DagRunType::Scheduled };
        DagRun {
            id: DagRunId(self.ids.fresh()),
            dag_id: dag_id.clone(),
            run_id: RunId::from(format!("{kind}__{}", at.to_rfc3339())),
            run_type: kind,
            state,
            logical_date: Some(at),
            data_interval_start: Some(at),
            data_interval_end: Some(at),
            run_after: at,
            queued_at: at,
            start_date: (state != DagRunState::Queued).then_some(at),
            end_date: None,
            conf: json!({ "threshold": 3, "who": "seed" }),
            triggered_by: Some(if is_manual { TriggeredBy::Ui } else { TriggeredBy::Timetable }),
            triggering_user: is_manual.then(|| "ada".to_owned()),
            dag_version_id: version,
            bundle_version: None,
            clear_number: 0,
            backfill_id: None,
            partition_key: None,
            note: None,
            unfinished_count: 0,
            under_way_count: 0,
            is_expanded: true,
            is_dirty: false,
            due_at: None,
            last_scheduling_decision: Some(at),
            change_seq: 1,
        }
    }

    /// A task instance of a run in a state.
    #[expect(clippy::too_many_arguments, reason = "Each is one column that callers vary.")]
    pub fn instance(
        &self,
        run: &DagRun,
        dag: &Dag,
        task_id: &str,
        map_index: i32,
        state: TaskInstanceState,
        start: Timestamp,
        seconds: i64,
    ) -> TaskInstance {
        use TaskInstanceState as S;
        let task = dag.task(dag.index_of(task_id).unwrap());
        let has_run = matches!(
            state,
            S::Success
                | S::Failed
                | S::Running
                | S::UpForRetry
                | S::Deferred
                | S::UpForReschedule
                | S::Restarting
        );
        TaskInstance {
            id: TaskInstanceId(self.ids.fresh()),
            dag_run_id: run.id,
            dag_id: run.dag_id.clone(),
            run_id: run.run_id.clone(),
            task_id: task_id.into(),
            map_index: MapIndex(map_index),
            state,
            accounted_state: state,
            is_dirty: false,
            change_seq: 1,
            try_number: i32::from(has_run),
            max_tries: task.retries,
            epoch: Epoch(1),
            lease: (state == S::Running).then(|| Lease {
                attempt_id: AttemptId(self.ids.fresh()),
                expires_at: self.now + TimeDelta::hours(1),
            }),
            scheduled_at: (state != S::None).then_some(start - TimeDelta::seconds(1)),
            queued_at: has_run.then_some(start - TimeDelta::seconds(1)),
            resend_at: None,
            send_count: 1,
            start_date: has_run.then_some(start),
            end_date: (state.is_finished() || state == S::UpForRetry)
                .then_some(start + TimeDelta::seconds(seconds)),
            due_at: (state == S::UpForRetry).then_some(self.now + TimeDelta::minutes(4)),
            pool: task.pool.clone(),
            pool_slots: 1,
            queue: task.queue.clone(),
            priority_weight: 1,
            executor: None,
            operator: task.task_type.clone(),
            operator_name: task.operator_name.clone(),
            task_display_name: task.display_name.clone(),
            rendered_map_index: None,
            hostname: has_run.then(|| "worker-1".to_owned()),
            pid: has_run.then_some(4711),
            next_method: None,
            next_kwargs: Value::Null,
            trigger_id: None,
            retry_delay_override: None,
            retry_reason: None,
            dag_version_id: run.dag_version_id,
            note: None,
            updated_at: self.now,
        }
    }

    /// Everything that a site would have after a busy day.
    pub async fn site(&self, serialized: &[Value]) {
        let mut dice = Dice::new(7);
        for (number, one) in serialized.iter().enumerate() {
            let mut tx = self.begin().await;
            let (dag, version) = self.dag(&mut *tx, one).await;
            if number % 5 == 3 {
                tx.set_dag_paused(&dag.dag_id, true).await.unwrap();
            }
            let count = [16, 9, 24, 4, 0][number % 5];
            for at in 0..count {
                let begun = self.now - TimeDelta::minutes(37 * (count - at)) + TimeDelta::seconds(11 * at);
                let is_last = at + 1 == count;
                self.past_run(&mut *tx, &dag, version, begun, is_last, &mut dice).await;
            }
            tx.commit().await.unwrap();
        }
        let mut tx = self.begin().await;
        self.surroundings(&mut *tx).await;
        tx.commit().await.unwrap();
    }

    async fn past_run(
        &self,
        tx: &mut dyn Tx,
        dag: &Dag,
        version: DagVersionId,
        begun: Timestamp,
        is_last: bool,
        dice: &mut Dice,
    ) {
        use TaskInstanceState as S;
        let fails = dice.roll(5) == 0;
        let state = match (is_last, fails) {
            (true, _) if dice.roll(3) > 0 => DagRunState::Running,
            (_, true) => DagRunState::Failed,
            _ => DagRunState::Success,
        };
        let mut run = self.run(&dag.dag_id, version, begun, state);
        let order = dag.topological();
        let broken = dice.roll(u32::try_from(order.len()).unwrap()) as usize;
        let mut rows = Vec::new();
        let mut at = begun;
        for (rank, &index) in order.iter().enumerate() {
            let task = dag.task(index);
            let seconds = 3 + i64::from(dice.roll(90));
            let own = match state {
                DagRunState::Failed if rank == broken => S::Failed,
                DagRunState::Failed if rank > broken => {
                    if dag.links(index).upstream.is_empty() {
                        S::Success
                    } else {
                        S::UpstreamFailed
                    }
                }
                DagRunState::Running if rank >= broken => {
                    const NEXT: [S; 10] = [
                        S::Running,
                        S::UpForRetry,
                        S::Queued,
                        S::Scheduled,
                        S::Deferred,
                        S::UpForReschedule,
                        S::None,
                        S::None,
                        S::None,
                        S::None,
                    ];
                    NEXT[(rank - broken).min(9)]
                }
                _ if dice.roll(14) == 0 => S::Skipped,
                _ => S::Success,
            };
            let start = if state == DagRunState::Running && rank >= broken {
                self.now - TimeDelta::seconds(40 + i64::from(dice.roll(100)))
            } else {
                at
            };
            let copies = if task.needs_expansion { 4 } else { 1 };
            for copy in 0..copies {
                let index = if task.needs_expansion { copy } else { -1 };
                let mixed =
                    if copy == 2 && own == S::Success && dice.roll(3) == 0 { S::Skipped } else { own };
                let row = self.instance(&run, dag, task.task_id.as_str(), index, mixed, start, seconds);
                if row.try_number > 0 {
                    self.leave_traces(tx, &row, dice).await;
                }
                rows.push(row);
            }
            if dice.roll(3) > 0 {
                at += TimeDelta::seconds(seconds);
            }
        }
        if state.is_finished() {
            run.end_date = rows.iter().filter_map(|row| row.end_date).max().or(Some(begun));
        }
        if fails {
            run.note = Some("The source was down; Grace looks at it.".into());
        }
        assert!(tx.insert_dag_run(&run).await.unwrap());
        tx.insert_task_instances(&rows).await.unwrap();
        for row in rows.iter().filter(|row| row.try_number > 0) {
            let fields = json!({
                "bash_command": format!("echo {}", row.task_id),
                "env": { "LANG": "C.UTF-8", "RUN": row.run_id.as_str() },
                "op_args": [1, 2, 3],
            });
            tx.put_rendered_fields(row.id, &fields).await.unwrap();
        }
    }

    async fn leave_traces(&self, tx: &mut dyn Tx, row: &TaskInstance, dice: &mut Dice) {
        let line = |second: i64, level: &str, logger: &str, event: &str, extra: Value| {
            let at = row.start_date.unwrap() + TimeDelta::milliseconds(second * 137);
            let mut line =
                json!({ "timestamp": at.to_rfc3339(), "level": level, "logger": logger, "event": event });
            if let (Some(line), Some(extra)) = (line.as_object_mut(), extra.as_object()) {
                line.extend(extra.clone());
            }
            line.to_string() + "\n"
        };
        let mut text = line(0, "info", "task", "Task instance is started", json!({ "try": 1, "pid": 4711 }));
        for number in 1..=20 + i64::from(dice.roll(40)) {
            let extra =
                if number % 7 == 0 { json!({ "rows": number * 1000, "table": "orders" }) } else { json!({}) };
            text += &line(
                number,
                if number % 11 == 0 { "warning" } else { "info" },
                "task.stdout",
                &format!("step {number}: loading the next batch of rows"),
                extra,
            );
        }
        if row.state == TaskInstanceState::Failed {
            let detail = json!({ "error_detail": [{
                "exc_type": "ValueError", "exc_value": "the upstream table is empty", "is_cause": false,
                "frames": [
                    { "filename": "/opt/airflow/sdk/execution_time/task_runner.py", "lineno": 1112, "name": "run", "line": "result = _execute_task(context, ti, log)" },
                    { "filename": "dags/orders.py", "lineno": 37, "name": "load", "line": "raise ValueError(\"the upstream table is empty\")" },
                ],
            }] });
            text += &line(90, "error", "task", "Task failed with exception", detail);
        }
        let is_open = row.state == TaskInstanceState::Running;
        let log = TryLog { try_number: 1, ..TryLog::of(row) };
        let key = log.key(ChunkName { epoch: Epoch(1), seq: 0, is_end: !is_open }).unwrap();
        self.objects.create(&key, encode_chunk(text.as_bytes()).unwrap()).await.unwrap();
        if row.state == TaskInstanceState::Success {
            let xcom = XCom {
                key: XComKey {
                    dag_run_id: row.dag_run_id,
                    task_id: row.task_id.clone(),
                    map_index: row.map_index,
                    key: "return_value".into(),
                },
                dag_id: row.dag_id.clone(),
                run_id: row.run_id.clone(),
                value: json!({ "rows": 4200, "tables": ["orders", "customers"], "ok": true }),
                mapped_length: None,
                is_dag_result: false,
                timestamp: self.now,
            };
            tx.put_xcoms(&[xcom]).await.unwrap();
        }
    }

    async fn surroundings(&self, tx: &mut dyn Tx) {
        let trace = "Traceback (most recent call last):\n  File \"dags/broken.py\", line 4, in <module>\n    import \
                     orders_v2\nModuleNotFoundError: No module named 'orders_v2'\n";
        tx.replace_import_errors(&"dags-folder".into(), "broken.py", &[trace.into()], self.now)
            .await
            .unwrap();
        for (name, slots, text) in
            [("default_pool", 128, "Default pool"), ("warehouse", 4, "At most four queries at once")]
        {
            let pool = Pool {
                name: name.into(),
                slots,
                description: Some(text.into()),
                include_deferred: name == "warehouse",
            };
            tx.put_pool(&pool).await.unwrap();
        }
        for (key, text) in [("environment", "Which one this is"), ("orders_api_key", "Of the orders service")]
        {
            tx.put_variable(&VariableRecord {
                key: key.into(),
                sealed_value: "sealed".into(),
                description: Some(text.into()),
            })
            .await
            .unwrap();
        }
        tx.put_connection(&ConnectionRecord {
            conn_id: "warehouse_db".into(),
            conn_type: "postgres".into(),
            description: Some("The warehouse, read only".into()),
            host: Some("warehouse.internal".into()),
            schema: Some("dwh".into()),
            login: Some("gust".into()),
            sealed_password: Some("sealed".into()),
            port: Some(5432),
            sealed_extra: None,
        })
        .await
        .unwrap();
        for (kind, name, age_s) in [
            (ComponentKind::Scheduler, "host-a:101", 1),
            (ComponentKind::DagProcessor, "host-a:101", 4),
            (ComponentKind::Worker, "host-a:101", 2),
            (ComponentKind::Worker, "host-b:88", 400),
        ] {
            tx.put_component(&Component {
                kind,
                name: name.into(),
                heartbeat_at: self.now - TimeDelta::seconds(age_s),
                started_at: self.now - TimeDelta::hours(9),
            })
            .await
            .unwrap();
        }
        let asset = Asset {
            id: AssetId(self.ids.fresh()),
            name: "orders".into(),
            uri: "s3://warehouse/orders".into(),
            group: "asset".into(),
            extra: json!({}),
            is_active: true,
        };
        let id = tx.put_asset(&asset).await.unwrap();
        for (dag, kind, task) in [
            ("asset_produces_1", AssetReferenceKind::Outlet, Some("producing_task_1")),
            ("asset_consumes_1_and_2", AssetReferenceKind::Schedule, None),
        ] {
            let reference = AssetReference {
                dag_id: dag.into(),
                kind,
                task_id: task.map(Into::into),
                name: asset.name.clone(),
                uri: Some(asset.uri.clone()),
            };
            tx.replace_asset_references(&dag.into(), &[reference]).await.unwrap();
        }
        tx.insert_asset_event(&AssetEvent {
            id: EventId(self.ids.fresh()),
            asset_id: id,
            timestamp: self.now - TimeDelta::minutes(12),
            extra: json!({}),
            source_dag_id: Some("asset_produces_1".into()),
            source_run_id: Some("manual__1".into()),
            source_task_id: Some("producing_task_1".into()),
            source_map_index: MapIndex::UNMAPPED,
            source_aliases: Vec::new(),
            partition_key: None,
        })
        .await
        .unwrap();
    }
}

/// The moment now, without what no store keeps.
pub fn now() -> Timestamp {
    use chrono::SubsecRound as _;
    Utc::now().trunc_subsecs(6)
}

/// What every text of [`hostile_dag`] holds.
pub const HOSTILE: &str = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>";

/// A DAG whose every text tries to be markup.
pub fn hostile_dag() -> Value {
    let task = |id: &str, next: Vec<String>| {
        json!({ "__type": "operator", "__var": {
            "task_id": format!("{HOSTILE}{id}"), "task_type": HOSTILE, "_task_module": HOSTILE, "owner": HOSTILE,
            "task_display_name": format!("{HOSTILE}{id}"), "_operator_name": HOSTILE, "doc_md": HOSTILE,
            "downstream_task_ids": next, "pool": HOSTILE, "queue": HOSTILE,
        } })
    };
    let group_id = format!("{HOSTILE}group");
    json!({ "__version": 3, "dag": {
        "dag_id": HOSTILE, "dag_display_name": HOSTILE, "description": HOSTILE, "doc_md": HOSTILE,
        "fileloc": HOSTILE, "relative_fileloc": HOSTILE, "tags": [HOSTILE],
        "timetable": { "__type": "airflow.timetables.simple.NullTimetable", "__var": {} },
        "params": [[HOSTILE, { "__class": "airflow.sdk.definitions.param.Param", "default": HOSTILE, "description": HOSTILE, "schema": { "title": HOSTILE } }]],
        "tasks": [task("1", vec![format!("{HOSTILE}2")]), task("2", vec![])],
        "task_group": {
            "_group_id": null, "group_display_name": "", "prefix_group_id": true, "tooltip": "", "ui_color": "c", "ui_fgcolor": "f",
            "children": {
                (format!("{HOSTILE}1")): ["operator", format!("{HOSTILE}1")],
                (group_id.clone()): ["taskgroup", {
                    "_group_id": group_id, "group_display_name": HOSTILE, "prefix_group_id": false, "tooltip": HOSTILE,
                    "ui_color": HOSTILE, "ui_fgcolor": HOSTILE,
                    "children": { (format!("{HOSTILE}2")): ["operator", format!("{HOSTILE}2")] },
                    "upstream_group_ids": [], "downstream_group_ids": [], "upstream_task_ids": [], "downstream_task_ids": [],
                }],
            },
            "upstream_group_ids": [], "downstream_group_ids": [], "upstream_task_ids": [], "downstream_task_ids": [],
        },
        "edge_info": {}, "dag_dependencies": [],
    } })
}

/// A DAG of many tasks side by side.
pub fn wide_dag(count: usize) -> Value {
    let names: Vec<String> = (0..count).map(|at| format!("task_{at:04}")).collect();
    let tasks: Vec<Value> = std::iter::once(json!({ "__type": "operator", "__var": {
        "task_id": "begin", "task_type": "EmptyOperator", "_task_module": "m", "downstream_task_ids": names,
    } }))
    .chain(names.iter().map(|name| {
        json!({ "__type": "operator", "__var": {
            "task_id": name, "task_type": "BashOperator", "_task_module": "m", "downstream_task_ids": [],
        } })
    }))
    .collect();
    let children: serde_json::Map<String, Value> = std::iter::once("begin".to_owned())
        .chain(names.iter().cloned())
        .map(|name| (name.clone(), json!(["operator", name])))
        .collect();
    json!({ "__version": 3, "dag": {
        "dag_id": "wide", "fileloc": "wide.py", "relative_fileloc": "wide.py", "tags": [],
        "timetable": { "__type": "airflow.timetables.simple.NullTimetable", "__var": {} },
        "tasks": tasks, "edge_info": {}, "params": [], "dag_dependencies": [],
        "task_group": {
            "_group_id": null, "group_display_name": "", "prefix_group_id": true, "tooltip": "", "ui_color": "c", "ui_fgcolor": "f",
            "children": children,
            "upstream_group_ids": [], "downstream_group_ids": [], "upstream_task_ids": [], "downstream_task_ids": [],
        },
    } })
}

impl Seeder {
    /// A run of the mapping example with very many instances, with the tally that the planner would keep.
    pub async fn many_mapped(&self, count: i32) {
        let mut tx = self.begin().await;
        let (_, dag) = gust_operations::latest_dag(&mut *tx, &"example_dynamic_task_mapping".into())
            .await
            .unwrap()
            .unwrap();
        let version = tx.dag(&dag.dag_id).await.unwrap().unwrap().current_version_id;
        let run = DagRun {
            run_id: "manual__many".into(),
            logical_date: None,
            ..self.run(&dag.dag_id, version, self.now, DagRunState::Running)
        };
        assert!(tx.insert_dag_run(&run).await.unwrap());
        let rows: Vec<TaskInstance> = (0..count)
            .map(|at| {
                let state = if at % 50 == 0 { TaskInstanceState::Failed } else { TaskInstanceState::Success };
                self.instance(&run, &dag, "add_one", at, state, self.now, 3)
            })
            .collect();
        tx.insert_task_instances(&rows).await.unwrap();
        let failed = u32::try_from(count / 50).unwrap();
        let total = u32::try_from(count).unwrap();
        tx.put_tallies(&[gust_model::record::TaskTally {
            dag_run_id: run.id,
            task_id: "add_one".into(),
            expanded_length: Some(total),
            own: [(TaskInstanceState::Failed, failed), (TaskInstanceState::Success, total - failed)].into(),
            upstream: gust_model::record::UpstreamTally::default(),
        }])
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }
}
