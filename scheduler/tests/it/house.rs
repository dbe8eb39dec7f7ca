use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{TimeZone as _, Utc};
use gust_model::{
    AttemptId, BundleName, BundleVersion, DagId, DagRunId, DagRunState, DagRunType, DagVersionId, QueueName,
    RunId, TaskInstanceState,
    message::WorkMessage,
    record::{DagRun, DagVersion, NextRun, Pool, TaskInstance, Timestamp},
};
use gust_planner::AdmissionSettings;
use gust_ports::{
    BundleError, BundleSource, Clock, DagParser, Ids, Metastore, NextRunQuestion, ObjectStore, ParseJob,
    ParsedFile, ParserError, TaskQueue, Tx,
    memory::{
        Fault, FaultHook, FaultPoint, ManualClock, MemoryMetastore, MemoryObjectStore, MemoryQueue,
        MemoryWakeups, SequentialIds,
    },
    metastore::{DagRunPatch, Guard, LeasePatch, TaskInstancePatch, TaskInstanceWrite, TxMode},
};
use gust_scheduler::{
    ExecutorSettings, Scheduler, SchedulerError, SchedulerSettings,
    dag_processor::{BundleOrigin, DagProcessor, DagProcessorSettings, Intake},
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

pub const LEASE: Duration = Duration::from_mins(1);

/// The statement of the metastore that meets a broken connection, if any.
#[derive(Default)]
struct Refused(std::sync::Mutex<&'static str>);

impl FaultHook for Refused {
    fn at(&self, point: FaultPoint) -> Fault {
        match point {
            FaultPoint::Statement { name, .. } if name == *self.0.lock().unwrap() => Fault::Unavailable,
            _ => Fault::None,
        }
    }
}

/// A Gust whose every port is in memory.
pub struct House {
    refused: Arc<Refused>,
    pub store: Arc<MemoryMetastore>,
    pub queue: Arc<MemoryQueue>,
    pub logs: Arc<MemoryObjectStore>,
    pub clock: Arc<ManualClock>,
    pub ids: Arc<SequentialIds>,
    pub scheduler: Arc<Scheduler>,
    pub folder: Arc<Folder>,
    processor: DagProcessor,
}

/// What lies in the DAG folder: each file's parse.
#[derive(Default)]
pub struct Folder {
    pub files: Mutex<BTreeMap<String, ParsedFile>>,
    pub version: Mutex<u32>,
}

#[async_trait]
impl DagParser for Folder {
    async fn parse(
        &self,
        _job: &ParseJob,
        out: mpsc::Sender<ParsedFile>,
    ) -> Result<Vec<String>, ParserError> {
        let files = self.files.lock().await.clone();
        for file in files.values() {
            if out.send(file.clone()).await.is_err() {
                break;
            }
        }
        Ok(files.into_keys().collect())
    }

    async fn next_run(
        &self,
        _job: &ParseJob,
        question: &NextRunQuestion,
    ) -> Result<Option<NextRun>, ParserError> {
        let step = question.timetable["__var"]["every_s"].as_i64();
        let step = step.ok_or_else(|| ParserError("KeyError: every_s".to_owned()))?;
        let start = question.last.as_ref().map_or(question.earliest, |last| Some(last.run_after));
        Ok(start.map(|start| {
            let at = start + chrono::TimeDelta::seconds(step);
            NextRun {
                run_after: at,
                logical_date: Some(at),
                data_interval_start: Some(at),
                data_interval_end: Some(at),
                partition_key: None,
            }
        }))
    }
}

#[async_trait]
impl BundleSource for Folder {
    async fn local_path(&self, _name: &BundleName, _version: &BundleVersion) -> Result<PathBuf, BundleError> {
        Ok(PathBuf::from("bundle"))
    }
}

struct Origin(BundleName, Arc<Folder>);

#[async_trait]
impl BundleOrigin for Origin {
    fn name(&self) -> &BundleName {
        &self.0
    }

    async fn newest(&self) -> Result<BundleVersion, String> {
        Ok(BundleVersion::from(format!("{:064}", *self.1.version.lock().await)))
    }

    async fn changed(&mut self) -> bool {
        std::future::pending().await
    }
}

impl House {
    pub async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Utc.with_ymd_and_hms(2026, 3, 1, 12, 0, 0).unwrap()));
        let as_clock: Arc<dyn Clock> = clock.clone();
        let refused = Arc::new(Refused::default());
        let store = Arc::new(MemoryMetastore::with_faults(Arc::clone(&as_clock), refused.clone()));
        let queue = Arc::new(MemoryQueue::new(Arc::clone(&as_clock), Duration::from_hours(1)));
        let logs = Arc::new(MemoryObjectStore::new());
        let ids = Arc::new(SequentialIds::new(7));
        let wakeups = Arc::new(MemoryWakeups::new(1_000));
        let folder = Arc::new(Folder::default());
        let settings = SchedulerSettings {
            executor: ExecutorSettings {
                admission: AdmissionSettings { parallelism: 4, ..AdmissionSettings::default() },
                ..ExecutorSettings::default()
            },
            ..SchedulerSettings::default()
        };
        let scheduler = Arc::new(Scheduler::new(
            store.clone(),
            queue.clone(),
            logs.clone(),
            wakeups.clone(),
            Arc::clone(&as_clock),
            ids.clone(),
            settings,
        ));
        let processor = DagProcessor::new(
            store.clone(),
            folder.clone(),
            folder.clone(),
            wakeups,
            as_clock,
            ids.clone(),
            DagProcessorSettings {
                reparse_interval: Duration::from_secs(30),
                file_timeout: Duration::from_secs(30),
                paused_at_creation: false,
                component: "test".to_owned(),
            },
        );
        let house = Self { refused, store, queue, logs, clock, ids, scheduler, folder, processor };
        let mut tx = house.write().await;
        let pool =
            Pool { name: "default_pool".into(), slots: 128, description: None, include_deferred: false };
        tx.put_pool(&pool).await.unwrap();
        tx.commit().await.unwrap();
        house
    }

    pub async fn write(&self) -> Box<dyn Tx> {
        self.store.begin(TxMode::Write).await.unwrap()
    }

    pub async fn read(&self) -> Box<dyn Tx> {
        self.store.begin(TxMode::Read).await.unwrap()
    }

    /// Puts a file into the folder, and parses all of it.
    pub async fn put_file(&self, name: &str, dags: Vec<Value>, errors: &[&str]) -> Intake {
        let file = ParsedFile {
            relative_path: name.to_owned(),
            dags,
            errors: errors.iter().map(|&error| error.to_owned()).collect(),
            warnings: Vec::new(),
            duration: Duration::from_millis(3),
        };
        self.folder.files.lock().await.insert(name.to_owned(), file);
        self.look().await
    }

    pub async fn remove_file(&self, name: &str) -> Intake {
        self.folder.files.lock().await.remove(name);
        self.look().await
    }

    pub async fn look(&self) -> Intake {
        self.try_look().await.unwrap()
    }

    pub async fn try_look(&self) -> Result<Intake, SchedulerError> {
        *self.folder.version.lock().await += 1;
        self.processor.look(&Origin("dags".into(), Arc::clone(&self.folder))).await
    }

    /// Breaks the connection at every statement of this name; at none for the empty name.
    pub fn refuse(&self, statement: &'static str) {
        *self.refused.0.lock().unwrap() = statement;
    }

    /// Makes a queued run of a DAG, as a person's trigger does.
    pub async fn trigger(&self, dag_id: &str, run_id: &str) -> DagRunId {
        let mut tx = self.write().await;
        let record = tx.dag(&dag_id.into()).await.unwrap().unwrap();
        let now = self.clock.now();
        let run = DagRun {
            id: DagRunId(self.ids.fresh()),
            dag_id: dag_id.into(),
            run_id: run_id.into(),
            run_type: DagRunType::Manual,
            state: DagRunState::Queued,
            logical_date: None,
            data_interval_start: None,
            data_interval_end: None,
            run_after: now,
            queued_at: now,
            start_date: None,
            end_date: None,
            conf: json!({}),
            triggered_by: None,
            triggering_user: None,
            dag_version_id: record.current_version_id,
            bundle_version: record.bundle_version,
            clear_number: 0,
            backfill_id: None,
            partition_key: None,
            note: None,
            unfinished_count: 0,
            under_way_count: 0,
            is_expanded: false,
            is_dirty: true,
            due_at: None,
            last_scheduling_decision: None,
            change_seq: 0,
        };
        assert!(tx.insert_dag_run(&run).await.unwrap());
        tx.commit().await.unwrap();
        run.id
    }

    /// Passes until a pass changes nothing more.
    pub async fn settle(&self) {
        loop {
            let pass = self.scheduler.pass().await.unwrap();
            if pass.created + pass.started + pass.advanced + pass.admitted + pass.reaped == 0 {
                return;
            }
        }
    }

    pub async fn received(&self) -> Vec<WorkMessage> {
        let queue: QueueName = "default".into();
        let deliveries = self.queue.receive(&queue, 100, Duration::ZERO).await.unwrap();
        for delivery in &deliveries {
            self.queue.delete(&queue, &delivery.receipt).await.unwrap();
        }
        deliveries.into_iter().map(|delivery| delivery.message).collect()
    }

    /// Claims what a message names, as a worker does.
    pub async fn claim(&self, message: WorkMessage) -> Option<TaskInstance> {
        let mut tx = self.write().await;
        let attempt = AttemptId(self.ids.fresh());
        let claimed = tx
            .claim_task_instance(message.id.into_row(), message.epoch, attempt, LEASE, "host", 1)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        claimed
    }

    /// Ends a claimed try, as a worker does. False if it was no longer the worker's.
    pub async fn end(&self, claimed: &TaskInstance, state: TaskInstanceState) -> bool {
        let mut tx = self.write().await;
        let now: Timestamp = tx.now().await.unwrap();
        let fence = Guard::Fence(claimed.epoch, claimed.lease.unwrap().attempt_id);
        let patch = TaskInstancePatch {
            state: Some(state),
            is_dirty: Some(true),
            lease: LeasePatch::End,
            end_date: Some(Some(now)),
            ..TaskInstancePatch::default()
        };
        let written =
            tx.update_task_instances(&[TaskInstanceWrite { id: claimed.id, guard: fence, patch }]).await;
        tx.commit().await.unwrap();
        !written.unwrap().is_empty()
    }

    /// Gives a DAG, its runs and their task instances a version that cannot be read.
    pub async fn break_graph(&self, dag_id: &str) {
        let dag_id: DagId = dag_id.into();
        let mut tx = self.write().await;
        let mut record = tx.dag(&dag_id).await.unwrap().unwrap();
        let good = tx.dag_version(record.current_version_id).await.unwrap().unwrap();
        let bad = DagVersion {
            id: DagVersionId(self.ids.fresh()),
            version_number: good.version_number + 1,
            hash: "unreadable".to_owned(),
            ..good
        };
        tx.put_serialized_dag(&bad.hash, r#"{"__version": 99}"#).await.unwrap();
        tx.insert_dag_version(&bad).await.unwrap();
        record.current_version_id = bad.id;
        tx.put_dag(&record).await.unwrap();
        for run in tx.newest_dag_runs(&[dag_id], 1_000).await.unwrap() {
            let patch =
                DagRunPatch { dag_version_id: Some(bad.id), is_dirty: Some(true), ..DagRunPatch::default() };
            tx.update_dag_run(run.id, &patch).await.unwrap();
            for row in tx.task_instances_of(run.id, &[]).await.unwrap() {
                let patch =
                    TaskInstancePatch { dag_version_id: Some(bad.id), ..TaskInstancePatch::default() };
                let write = TaskInstanceWrite { id: row.id, guard: Guard::Any, patch };
                tx.update_task_instances(&[write]).await.unwrap();
            }
        }
        tx.commit().await.unwrap();
    }

    pub async fn set_running(&self, id: DagRunId) {
        let mut tx = self.write().await;
        let patch = DagRunPatch { state: Some(DagRunState::Running), ..DagRunPatch::default() };
        tx.update_dag_run(id, &patch).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn run_state(&self, id: DagRunId) -> DagRunState {
        self.read().await.dag_run_by_id(id).await.unwrap().unwrap().state
    }

    pub async fn runs(&self, dag_id: &str) -> Vec<(RunId, DagRunState)> {
        let dag_id: DagId = dag_id.into();
        let runs = self.read().await.newest_dag_runs(&[dag_id], 100).await.unwrap();
        runs.into_iter().map(|run| (run.run_id, run.state)).collect()
    }

    pub async fn states(&self, id: DagRunId) -> BTreeMap<String, TaskInstanceState> {
        let rows = self.read().await.task_instances_of(id, &[]).await.unwrap();
        rows.into_iter().map(|row| (row.task_id.to_string(), row.state)).collect()
    }

    pub async fn objects(&self) -> Vec<String> {
        let objects = self.logs.list("", None, 1_000).await.unwrap();
        objects.into_iter().map(|object| object.key.to_string()).collect()
    }
}

/// The row that a message's id names.
trait IntoRow {
    fn into_row(self) -> gust_model::TaskInstanceId;
}

impl IntoRow for uuid::Uuid {
    fn into_row(self) -> gust_model::TaskInstanceId {
        gust_model::TaskInstanceId(self)
    }
}

/// A serialized DAG of tasks `(id, downstream ids, more fields)`.
pub fn dag(dag_id: &str, schedule: &Value, tasks: &[(&str, &[&str], Value)]) -> Value {
    let task = |(id, downstream, more): &(&str, &[&str], Value)| {
        let mut body = json!({
            "task_id": id, "downstream_task_ids": downstream, "task_type": "PythonOperator",
            "_task_module": "airflow.providers.standard.operators.python", "template_fields": [], "retry_delay": 300.0,
        });
        let fields = body.as_object_mut().unwrap();
        fields.extend(more.as_object().cloned().unwrap_or_default());
        json!({ "__type": "operator", "__var": body })
    };
    let children: serde_json::Map<String, Value> =
        tasks.iter().map(|(id, ..)| ((*id).to_owned(), json!(["operator", id]))).collect();
    json!({
        "__version": 3,
        "dag": {
            "dag_id": dag_id, "fileloc": "/x.py", "relative_fileloc": "x.py", "timezone": "UTC", "catchup": false,
            "start_date": 1_704_067_200.0, "timetable": schedule, "max_active_tasks": 16, "max_active_runs": 16,
            "tasks": tasks.iter().map(task).collect::<Vec<_>>(), "dag_dependencies": [], "edge_info": {}, "params": [],
            "task_group": {
                "_group_id": null, "group_display_name": "", "prefix_group_id": true, "tooltip": "", "ui_color": "",
                "ui_fgcolor": "", "children": children, "upstream_group_ids": [], "downstream_group_ids": [],
                "upstream_task_ids": [], "downstream_task_ids": [],
            },
        },
    })
}

/// No schedule.
pub fn by_hand() -> Value {
    json!({ "__type": "airflow.timetables.simple.NullTimetable", "__var": {} })
}

/// Every hour, on the hour.
pub fn hourly() -> Value {
    json!({
        "__type": "airflow.timetables.trigger.CronTriggerTimetable",
        "__var": { "expression": "0 * * * *", "timezone": "UTC", "interval": 0.0, "run_immediately": false },
    })
}
