//! A Gust in memory with one DAG, `shop`, and runs in several states, behind the router.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use chrono::{DateTime, TimeDelta, Utc};
use gust_model::{
    DagRunId, DagRunState, DagVersionId, MapIndex, PoolName, TaskInstanceId, TaskInstanceState,
    dag::{Dag, canonical_json, stable_hash},
    record::{
        Asset, AssetReference, AssetReferenceKind, Component, ComponentKind, DagRecord, DagRun, DagVersion,
        NextRun, Pool, TaskInstance, XCom, XComKey,
    },
};
use gust_ports::{
    Cipher, CipherError, Clock, Ids, Metastore, ObjectStore, Tx,
    memory::{ManualClock, MemoryMetastore, MemoryObjectStore, MemoryWakeups, SequentialIds},
    metastore::TxMode,
};
use gust_task_log::{ChunkName, TryLog, encode_chunk};
use gust_web::{AppState, Auth, AuthMode, Role, Settings};
use serde_json::{Value, json};
use tower::ServiceExt;

/// Marks what is sealed, so that tests see whether something was.
#[derive(Debug)]
pub struct MarkingCipher;

impl Cipher for MarkingCipher {
    fn seal(&self, place: &str, plain: &str) -> Result<String, CipherError> {
        Ok(format!("sealed:{place}:{plain}"))
    }

    fn open(&self, place: &str, sealed: &str) -> Result<String, CipherError> {
        sealed
            .strip_prefix(&format!("sealed:{place}:"))
            .map(str::to_owned)
            .ok_or_else(|| CipherError::Damaged { place: place.to_owned() })
    }
}

pub struct World {
    pub state: AppState,
    pub router: Router,
    pub token: String,
}

pub const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

pub fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

impl World {
    pub async fn new() -> Self {
        Self::with(AuthMode::AllAdmins).await
    }

    pub async fn with(mode: AuthMode) -> Self {
        let clock = ManualClock::new(at("2026-03-01T12:00:00Z"));
        let world = Self::bare(mode, Arc::new(clock));
        seed(&world.state).await;
        world
    }

    /// Without rows.
    pub fn bare(mode: AuthMode, shared: Arc<dyn Clock>) -> Self {
        let auth = Auth::new(mode, SECRET).unwrap();
        let token = auth.token("tester", Role::Admin, shared.now()).unwrap();
        let metastore: Arc<dyn Metastore> = Arc::new(MemoryMetastore::new(Arc::clone(&shared)));
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryObjectStore::new());
        let state = AppState::new(
            metastore,
            store,
            Arc::new(MemoryWakeups::new(64)),
            Arc::new(SequentialIds::new(7)),
            shared,
            Arc::new(MarkingCipher),
            auth,
            Settings::default(),
        );
        Self { router: gust_web::router(state.clone()), state, token }
    }

    pub async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 16 << 20).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub fn request(&self, method: Method, path: &str) -> axum::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost:8080")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(self.request(Method::GET, path).body(Body::empty()).unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.send(self.request(Method::DELETE, path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.with_body(Method::POST, path, body).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.with_body(Method::PATCH, path, body).await
    }

    async fn with_body(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = self
            .request(method, path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        self.send(request).await
    }
}

fn run(ids: &dyn Ids, version: &DagVersion, run_id: &str, state: DagRunState, day: u32) -> DagRun {
    let date = at(&format!("2026-02-{day:02}T00:00:00Z"));
    let is_started = state != DagRunState::Queued;
    DagRun {
        id: DagRunId(ids.fresh()),
        dag_id: "shop".into(),
        run_id: run_id.into(),
        run_type: gust_model::DagRunType::Scheduled,
        state,
        logical_date: Some(date),
        data_interval_start: Some(date),
        data_interval_end: Some(date + TimeDelta::days(1)),
        run_after: date + TimeDelta::days(1),
        queued_at: date + TimeDelta::days(1),
        start_date: is_started.then(|| date + TimeDelta::seconds(86_401)),
        end_date: state.is_finished().then(|| date + TimeDelta::milliseconds(86_460_500)),
        conf: Value::Null,
        triggered_by: Some(gust_model::TriggeredBy::Timetable),
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

fn task_instance(
    ids: &dyn Ids,
    run: &DagRun,
    task_id: &str,
    index: i32,
    state: TaskInstanceState,
) -> TaskInstance {
    let is_started = state.is_finished() || state == TaskInstanceState::Running;
    TaskInstance {
        id: TaskInstanceId(ids.fresh()),
        dag_run_id: run.id,
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        task_id: task_id.into(),
        map_index: MapIndex(index),
        state,
        accounted_state: state,
        is_dirty: false,
        change_seq: 0,
        try_number: i32::from(is_started),
        max_tries: 2,
        epoch: gust_model::Epoch(1),
        lease: (state == TaskInstanceState::Running).then(|| gust_model::record::Lease {
            attempt_id: gust_model::AttemptId(ids.fresh()),
            expires_at: at("2026-03-01T12:01:00Z"),
        }),
        scheduled_at: None,
        queued_at: None,
        resend_at: None,
        send_count: 0,
        start_date: is_started.then(|| at("2026-02-03T00:00:02Z")),
        end_date: state.is_finished().then(|| at("2026-02-03T00:00:04.250Z")),
        due_at: None,
        pool: "default_pool".into(),
        pool_slots: 1,
        queue: "default".into(),
        priority_weight: 1,
        executor: None,
        operator: if task_id == "start" || task_id == "end.done" {
            "EmptyOperator"
        } else {
            "_PythonDecoratedOperator"
        }
        .into(),
        operator_name: None,
        task_display_name: None,
        rendered_map_index: None,
        hostname: is_started.then(|| "box".into()),
        pid: is_started.then_some(42),
        next_method: None,
        next_kwargs: Value::Null,
        trigger_id: None,
        retry_delay_override: None,
        retry_reason: None,
        dag_version_id: run.dag_version_id,
        note: None,
        updated_at: at("2026-02-03T00:00:05Z"),
    }
}

/// The DAG with a run that ended well, one that failed, and one that runs.
pub async fn seed(state: &AppState) {
    use TaskInstanceState as S;
    let ids = &*state.ids;
    let serialized: Value = serde_json::from_str(include_str!("fixtures/shop.json")).unwrap();
    let dag = Dag::from_serialized(&serialized).unwrap();
    let hash = stable_hash(&serialized);
    let version = DagVersion {
        id: DagVersionId(ids.fresh()),
        dag_id: dag.dag_id.clone(),
        version_number: 1,
        bundle_name: "dags".into(),
        bundle_version: Some("abc123".into()),
        hash: hash.clone(),
        created_at: at("2026-02-01T00:00:00Z"),
    };
    let mut tx = state.metastore.begin(TxMode::Write).await.unwrap();
    tx.put_serialized_dag(&hash, &canonical_json(&serialized)).await.unwrap();
    tx.put_dag(&record(&dag, &version)).await.unwrap();
    tx.insert_dag_version(&version).await.unwrap();
    for (name, slots) in [("default_pool", 128), ("small", 2)] {
        let pool = Pool { name: PoolName::from(name), slots, description: None, include_deferred: false };
        tx.put_pool(&pool).await.unwrap();
    }
    let component = Component {
        kind: ComponentKind::Scheduler,
        name: "box:1".into(),
        heartbeat_at: state.clock.now(),
        started_at: state.clock.now(),
    };
    tx.put_component(&component).await.unwrap();
    tx.replace_import_errors(
        &"dags".into(),
        "broken.py",
        &["NameError: x".to_owned()],
        at("2026-02-01T00:00:00Z"),
    )
    .await
    .unwrap();

    let good = run(ids, &version, "scheduled__2026-02-01T00:00:00+00:00", DagRunState::Success, 1);
    let bad = run(ids, &version, "scheduled__2026-02-02T00:00:00+00:00", DagRunState::Failed, 2);
    let going = run(ids, &version, "scheduled__2026-02-03T00:00:00+00:00", DagRunState::Running, 3);
    for (run, fetch, pack, done) in [
        (&good, S::Success, S::Success, S::Success),
        (&bad, S::Success, S::Failed, S::Success),
        (&going, S::Success, S::Running, S::None),
    ] {
        assert!(tx.insert_dag_run(run).await.unwrap());
        let rows = [
            task_instance(ids, run, "start", -1, S::Success),
            task_instance(ids, run, "fetch", -1, fetch),
            task_instance(ids, run, "pack", 0, pack),
            task_instance(ids, run, "pack", 1, S::Success),
            task_instance(ids, run, "end.done", -1, done),
        ];
        tx.insert_task_instances(&rows).await.unwrap();
        tx.put_rendered_fields(rows[1].id, &json!({"op_args": []})).await.unwrap();
        put_xcom(&mut *tx, run).await;
        put_log(&*state.store, &rows[1]).await;
    }
    let asset = Asset {
        id: gust_model::AssetId(ids.fresh()),
        name: "orders".into(),
        uri: "s3://shop/orders".into(),
        group: "asset".into(),
        extra: json!({"password": "hidden"}),
        is_active: true,
    };
    tx.put_asset(&asset).await.unwrap();
    let reference = AssetReference {
        dag_id: "shop".into(),
        kind: AssetReferenceKind::Schedule,
        task_id: None,
        name: asset.name,
        uri: Some(asset.uri),
    };
    tx.replace_asset_references(&"shop".into(), &[reference]).await.unwrap();
    tx.commit().await.unwrap();
}

fn record(dag: &Dag, version: &DagVersion) -> DagRecord {
    DagRecord {
        dag_id: dag.dag_id.clone(),
        dag_display_name: None,
        bundle_name: "dags".into(),
        bundle_version: version.bundle_version.clone(),
        relative_fileloc: "shop.py".into(),
        current_version_id: version.id,
        is_paused: false,
        is_stale: false,
        has_import_errors: false,
        description: dag.description.clone(),
        owners: dag.owners(),
        tags: dag.tags.iter().cloned().collect(),
        timetable_summary: Some("0 0 * * *".into()),
        timetable_description: Some("At 00:00".into()),
        is_scheduled: true,
        max_active_runs: dag.max_active_runs,
        max_active_tasks: dag.max_active_tasks,
        max_consecutive_failed_dag_runs: 0,
        next_run: Some(NextRun {
            run_after: at("2026-03-02T00:00:00Z"),
            logical_date: Some(at("2026-03-01T00:00:00Z")),
            data_interval_start: Some(at("2026-03-01T00:00:00Z")),
            data_interval_end: Some(at("2026-03-02T00:00:00Z")),
            partition_key: None,
        }),
        asset_expression: Value::Null,
        last_parsed_at: at("2026-03-01T11:59:00Z"),
        last_parse_duration: 0.25,
    }
}

async fn put_xcom(tx: &mut dyn Tx, run: &DagRun) {
    let xcom = XCom {
        key: XComKey {
            dag_run_id: run.id,
            task_id: "fetch".into(),
            map_index: MapIndex::UNMAPPED,
            key: "return_value".into(),
        },
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        value: json!([1, 2]),
        mapped_length: Some(2),
        is_dag_result: false,
        timestamp: at("2026-02-03T00:00:04Z"),
    };
    tx.put_xcoms(&[xcom]).await.unwrap();
}

async fn put_log(store: &dyn ObjectStore, row: &TaskInstance) {
    let lines = concat!(
        r#"{"timestamp":"2026-02-03T00:00:03Z","level":"info","event":"Fetching","logger":"task"}"#,
        "\n",
        r#"{"timestamp":"2026-02-03T00:00:04Z","level":"info","event":"Done. Returned value was: [1, 2]"}"#,
        "\n",
    );
    let chunk = ChunkName { epoch: row.epoch, seq: 0, is_end: true };
    let key = TryLog::of(row).key(chunk).unwrap();
    store.create(&key, encode_chunk(lines.as_bytes()).unwrap()).await.unwrap();
}

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);
