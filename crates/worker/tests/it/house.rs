//! A worker with everything around it in memory and the real Task SDK below it. The scheduler is the test itself.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use gust_model::{
    BundleName, BundleVersion, DagRunId, DagRunState, DagRunType, DagVersionId, MapIndex, TaskInstanceId,
    TaskInstanceState,
    dag::Dag,
    message::{WorkKind, WorkMessage},
    record::{
        ConnectionRecord, DagRecord, DagRun, DagVersion, TaskInstance, Timestamp, VariableRecord, XCom,
    },
};
use gust_ports::{
    BundleError, BundleSource, Cipher, CipherError, Ids as _, RandomIds, SystemClock, TokioSpawner, Tx, Wake,
    WakeStream, Wakeups,
    memory::{FaultHook, MemoryMetastore, MemoryObjectStore, MemoryQueue, MemoryWakeups, NoFaults},
    metastore::{Guard, TaskInstancePatch, TaskInstanceWrite, TxMode, XComFilter},
};
use gust_python_host::{Host, HostConfig, NoAnswers, ParseEvent, ParseRequest};
use gust_task_log::{TryLog, read_log};
use gust_worker::{Limits, Processes, Services, Worker, WorkerConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Seals by naming the place, so that a value opened for another place is refused.
pub struct Sealer;

impl Cipher for Sealer {
    fn seal(&self, place: &str, plain: &str) -> Result<String, CipherError> {
        Ok(format!("{place}={plain}"))
    }

    fn open(&self, place: &str, sealed: &str) -> Result<String, CipherError> {
        let plain = sealed.strip_prefix(&format!("{place}="));
        plain.map(str::to_owned).ok_or_else(|| CipherError::Damaged { place: place.to_owned() })
    }
}

struct Folder(PathBuf);

#[async_trait]
impl BundleSource for Folder {
    async fn local_path(&self, _: &BundleName, _: &BundleVersion) -> Result<PathBuf, BundleError> {
        Ok(self.0.clone())
    }
}

/// Wake-ups that remember what they said.
pub struct Said {
    inner: MemoryWakeups,
    pub wakes: Mutex<Vec<Wake>>,
}

#[async_trait]
impl Wakeups for Said {
    async fn wake(&self, wake: Wake) {
        self.wakes.lock().unwrap().push(wake.clone());
        self.inner.wake(wake).await;
    }

    fn listen(&self) -> WakeStream {
        self.inner.listen()
    }
}

pub struct House {
    pub services: Services,
    pub worker: Arc<Worker>,
    /// Python, where there is one.
    python: Option<Python>,
    pub said: Arc<Said>,
}

struct Python {
    host: Host,
    folder: TempDir,
    _home: TempDir,
}

/// A DAG and a running run of it.
pub struct InHand {
    pub dag: Arc<Dag>,
    pub run: DagRun,
}

pub const SLOW: Duration = Duration::from_mins(1);

impl House {
    pub async fn open() -> Option<Self> {
        Self::with(|_| {}, Arc::new(NoFaults)).await
    }

    pub async fn with(change: impl FnOnce(&mut WorkerConfig), faults: Arc<dyn FaultHook>) -> Option<Self> {
        let environment = gust_python_host::testing::environment().await?;
        let home = TempDir::new().unwrap();
        let folder = TempDir::new().unwrap();
        let host = Host::new(HostConfig::new(environment, home.path())).unwrap();
        let clock = Arc::new(SystemClock::default());
        let said = Arc::new(Said { inner: MemoryWakeups::new(64), wakes: Mutex::default() });
        let services = Services {
            metastore: Arc::new(MemoryMetastore::with_faults(clock.clone(), faults)),
            queue: Arc::new(MemoryQueue::new(clock.clone(), SLOW)),
            objects: Arc::new(MemoryObjectStore::new()),
            clock,
            ids: Arc::new(RandomIds),
            wakeups: said.clone(),
            spawner: Arc::new(TokioSpawner),
            cipher: Arc::new(Sealer),
            bundles: Arc::new(Folder(folder.path().to_owned())),
            processes: Arc::new(host.clone()) as Arc<dyn Processes>,
        };
        let mut config = WorkerConfig::new("test-host", 7);
        config.killed_task_cleanup_time = Duration::from_millis(300);
        change(&mut config);
        let worker = Worker::new(services.clone(), config);
        let python = Some(Python { host, folder, _home: home });
        Some(Self { services, worker, python, said })
    }

    /// A house whose processes are not Python's.
    pub fn of(services: Services, worker: Arc<Worker>) -> Self {
        let said = Arc::new(Said { inner: MemoryWakeups::new(64), wakes: Mutex::default() });
        Self { services, worker, python: None, said }
    }

    fn python(&self) -> &Python {
        self.python.as_ref().expect("this house has Python")
    }

    pub fn host(&self) -> Host {
        self.python().host.clone()
    }

    pub async fn write(&self) -> Box<dyn Tx> {
        self.services.metastore.begin(TxMode::Write).await.unwrap()
    }

    /// Writes a DAG file, parses it and starts a run. `body` stands in `with DAG(...)`.
    pub async fn dag(&self, name: &str, options: &str, body: &str) -> InHand {
        let body = body.replace('\n', "\n    ");
        let text = format!(
            "import os, sys, time, signal, datetime\nfrom airflow.sdk import DAG, task, Variable, Connection, Asset, \
             AssetAlias\nfrom airflow.sdk.exceptions import AirflowFailException, AirflowSkipException\n\n\
             with DAG('{name}', schedule=None{options}):\n    {body}\n"
        );
        self.file(&format!("{name}.py"), &text).await.remove(0)
    }

    /// Writes and parses a file, and starts a run of each of its DAGs.
    pub async fn file(&self, path: &str, text: &str) -> Vec<InHand> {
        let Python { host, folder, .. } = self.python();
        std::fs::write(folder.path().join(path), text).unwrap();
        let request = ParseRequest {
            bundle_path: folder.path().to_owned(),
            bundle_name: "b".to_owned(),
            files: Some(vec![path.to_owned()]),
            safe_mode: false,
            file_limit: SLOW,
            env: BTreeMap::new(),
        };
        let mut parse = host.parse(request, Arc::new(NoAnswers));
        let mut found = Vec::new();
        while let Some(event) = parse.next().await.unwrap() {
            if let ParseEvent::Parsed(file) = event {
                assert!(file.import_errors.is_empty(), "{:?}", file.import_errors);
                for dag in file.dags {
                    found.push(self.keep(path, &dag.data).await);
                }
            }
        }
        found
    }

    pub async fn keep(&self, path: &str, data: &Value) -> InHand {
        let dag = Arc::new(Dag::from_serialized(data).unwrap());
        let now = self.services.clock.now();
        let version = DagVersionId(RandomIds.fresh());
        let mut tx = self.write().await;
        let hash = version.to_string();
        tx.put_serialized_dag(&hash, &data.to_string()).await.unwrap();
        tx.insert_dag_version(&DagVersion {
            id: version,
            dag_id: dag.dag_id.clone(),
            version_number: 1,
            bundle_name: "b".into(),
            bundle_version: Some("v1".into()),
            hash,
            created_at: now,
        })
        .await
        .unwrap();
        tx.put_dag(&record(&dag, path, version, now)).await.unwrap();
        let run = running_run(&dag, version, "manual__1", now);
        assert!(tx.insert_dag_run(&run).await.unwrap());
        tx.commit().await.unwrap();
        InHand { dag, run }
    }

    /// The row of a task, made if there is none.
    pub async fn row(&self, hand: &InHand, task: &str, index: i32) -> TaskInstance {
        let mut tx = self.write().await;
        if let Some(row) = tx.task_instance_at(hand.run.id, &task.into(), MapIndex(index)).await.unwrap() {
            return row;
        }
        let task = hand.dag.index_of(task).unwrap();
        let now = self.services.clock.now();
        let id = TaskInstanceId(RandomIds.fresh());
        let row = gust_planner::new_instance(&hand.dag, task, &hand.run, MapIndex(index), id, now);
        tx.insert_task_instances(std::slice::from_ref(&row)).await.unwrap();
        tx.commit().await.unwrap();
        row
    }

    /// Queues a try, as admission does, and returns its hint. A task that goes on keeps its try.
    pub async fn queue(&self, hand: &InHand, task: &str, index: i32) -> WorkMessage {
        let row = self.row(hand, task, index).await;
        let goes_on = row.next_method.is_some() || row.state == TaskInstanceState::UpForReschedule;
        let patch = TaskInstancePatch {
            state: Some(TaskInstanceState::Queued),
            try_number: Some(row.try_number + i32::from(!goes_on)),
            next_epoch: true,
            queued_at: Some(Some(self.services.clock.now())),
            ..TaskInstancePatch::default()
        };
        let mut tx = self.write().await;
        let write = TaskInstanceWrite { id: row.id, guard: Guard::Any, patch };
        assert_eq!(tx.update_task_instances(&[write]).await.unwrap().len(), 1);
        tx.commit().await.unwrap();
        WorkMessage { kind: WorkKind::Try, id: row.id.0, epoch: row.epoch.next() }
    }

    /// Runs a task to the end of its try and returns its row.
    pub async fn run(&self, hand: &InHand, task: &str) -> TaskInstance {
        self.run_at(hand, task, -1).await
    }

    pub async fn run_at(&self, hand: &InHand, task: &str, index: i32) -> TaskInstance {
        let message = self.queue(hand, task, index).await;
        assert!(self.worker.run(message, &Limits::default()).await.unwrap(), "the try was not to be had");
        self.row(hand, task, index).await
    }

    /// All lines of a try's log.
    pub async fn lines(&self, row: &TaskInstance) -> Vec<Value> {
        let page = read_log(&*self.services.objects, &TryLog::of(row), None, usize::MAX).await.unwrap();
        assert!(page.is_ended, "the log of {} has no end", row.task_id);
        page.lines
    }

    /// The log as text, to look for words in.
    pub async fn log(&self, row: &TaskInstance) -> String {
        let lines: Vec<String> = self.lines(row).await.iter().map(Value::to_string).collect();
        lines.join("\n")
    }

    /// What a task returned; null if nothing.
    pub async fn returned(&self, hand: &InHand, task: &str, index: i32) -> Value {
        self.xcom(hand, task, index, "return_value").await.map_or(Value::Null, |xcom| xcom.value)
    }

    pub async fn xcom(&self, hand: &InHand, task: &str, index: i32, key: &str) -> Option<XCom> {
        let filter = XComFilter {
            dag_id: Some(hand.run.dag_id.clone()),
            run_id: Some(hand.run.run_id.clone()),
            task_id: Some(task.into()),
            map_index: Some(MapIndex(index)),
            key: Some(key.to_owned()),
        };
        self.write().await.xcoms(&filter, 1, 0).await.unwrap().items.pop()
    }

    pub async fn variable(&self, key: &str, value: &str) {
        let sealed_value = Sealer.seal(&format!("variable/{key}/value"), value).unwrap();
        let mut tx = self.write().await;
        tx.put_variable(&VariableRecord { key: key.into(), sealed_value, description: None }).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn connection(&self, id: &str, password: &str, extra: &str) {
        let seal = |part: &str, plain| Sealer.seal(&format!("connection/{id}/{part}"), plain).unwrap();
        let mut tx = self.write().await;
        tx.put_connection(&ConnectionRecord {
            conn_id: id.into(),
            conn_type: "http".into(),
            description: None,
            host: Some("example.com".into()),
            schema: None,
            login: Some("me".into()),
            sealed_password: Some(seal("password", password)),
            port: None,
            sealed_extra: Some(seal("extra", extra)),
        })
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }
}

pub fn running_run(dag: &Dag, version: DagVersionId, run_id: &str, now: Timestamp) -> DagRun {
    DagRun {
        id: DagRunId(RandomIds.fresh()),
        dag_id: dag.dag_id.clone(),
        run_id: run_id.into(),
        run_type: DagRunType::Manual,
        state: DagRunState::Running,
        logical_date: Some(now),
        data_interval_start: Some(now),
        data_interval_end: Some(now),
        run_after: now,
        queued_at: now,
        start_date: Some(now),
        end_date: None,
        conf: json!({"answer": 42}),
        triggered_by: None,
        triggering_user: None,
        dag_version_id: version,
        bundle_version: Some("v1".into()),
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

fn record(dag: &Dag, path: &str, version: DagVersionId, now: Timestamp) -> DagRecord {
    DagRecord {
        dag_id: dag.dag_id.clone(),
        dag_display_name: None,
        bundle_name: "b".into(),
        bundle_version: Some("v1".into()),
        relative_fileloc: path.to_owned(),
        current_version_id: version,
        is_paused: false,
        is_stale: false,
        has_import_errors: false,
        description: None,
        owners: "airflow".to_owned(),
        tags: Vec::new(),
        timetable_summary: None,
        timetable_description: None,
        is_scheduled: false,
        max_active_runs: 16,
        max_active_tasks: 16,
        max_consecutive_failed_dag_runs: 0,
        next_run: None,
        asset_expression: Value::Null,
        last_parsed_at: now,
        last_parse_duration: 0.1,
    }
}
