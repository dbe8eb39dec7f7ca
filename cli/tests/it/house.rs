//! A home with one DAG in it, and the binary run against it.

use std::{path::Path, process::Command};

use gust_local::FolderStore;
use gust_metastore::{Options, SqlMetastore};
use gust_model::record::{DagRecord, DagRun, DagVersion, TaskInstance};
use gust_ports::{Metastore as _, ObjectStore as _, metastore::TxMode};
use gust_task_log::{ChunkName, TryLog, encode_chunk};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A home folder that goes when it is dropped.
pub struct Home {
    folder: TempDir,
}

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

impl Ran {
    /// The output of a command that must have done its work.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// The output as JSON.
    pub fn json(self) -> Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// Where the DAG `hello` has its one run.
pub const RUN: &str = "manual__2026-01-31T06:30:00+00:00";

impl Home {
    /// An empty home, with no metastore in it yet.
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A home with a finished schema and nothing in it.
    pub fn migrated() -> Self {
        let home = Self::empty();
        home.gust(&["db", "migrate"]).ok();
        home
    }

    /// A home with the DAG `hello`, a failed run of it, its task instances and a log.
    pub async fn with_a_run() -> Self {
        let home = Self::migrated();
        home.seed().await;
        home
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the binary in this home.
    pub fn gust(&self, arguments: &[&str]) -> Ran {
        self.gust_with(arguments, &[])
    }

    /// Runs the binary in this home with variables set.
    pub fn gust_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gust"));
        command.env_clear().env("HOME", self.path()).envs(variables.iter().copied());
        command.arg("--home").arg(self.path()).args(arguments).stdin(std::process::Stdio::null());
        let output = command.output().unwrap();
        // Snapshots must not know where the home is.
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).unwrap().replace(&self.path().display().to_string(), "HOME")
        };
        Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    async fn seed(&self) {
        let url = format!("sqlite://{}", self.path().join("gust.db").display());
        let store = SqlMetastore::connect(&url, Options::default()).await.unwrap();
        let mut tx = store.begin(TxMode::Write).await.unwrap();
        let version: DagVersion = read(json!({
            "id": uuid(1), "dag_id": "hello", "version_number": 3, "bundle_name": "dags-folder",
            "bundle_version": "b1", "hash": "abc", "created_at": "2026-01-01T00:00:00Z",
        }));
        tx.put_serialized_dag("abc", &serialized().to_string()).await.unwrap();
        tx.put_dag(&dag()).await.unwrap();
        tx.insert_dag_version(&version).await.unwrap();
        tx.insert_dag_run(&run()).await.unwrap();
        let instances = [
            instance(10, "extract", -1, "success", 1),
            instance(11, "load.left", 0, "failed", 2),
            instance(12, "load.left", 1, "success", 1),
            instance(13, "report", -1, "upstream_failed", 0),
        ];
        tx.insert_task_instances(&instances).await.unwrap();
        tx.put_rendered_fields(
            instances[0].id,
            &json!({ "bash_command": "echo 1\necho 2", "env": {"A": "b"} }),
        )
        .await
        .unwrap();
        let broken = "Traceback (most recent call last):\nSyntaxError: \u{1b}[31mbad".to_owned();
        tx.replace_import_errors(&"dags-folder".into(), "broken.py", &[broken], version.created_at)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        store.close().await;

        let objects = FolderStore::open(&self.path().join("store")).unwrap();
        let log = TryLog::of(&instances[0]);
        let lines = [
            json!({"timestamp": "2026-01-31T06:30:01.5Z", "level": "info", "logger": "hello", "event": "begin", "n": 1}),
            json!({"timestamp": "2026-01-31T06:30:02.5Z", "level": "info", "logger": "task.stdout", "event": "printed"}),
        ];
        for (seq, line) in (0..).zip(&lines) {
            let name = ChunkName { epoch: instances[0].epoch, seq, is_end: seq == 1 };
            let chunk = encode_chunk(format!("{line}\n").as_bytes()).unwrap();
            objects.create(&log.key(name).unwrap(), chunk).await.unwrap();
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn uuid(number: u32) -> String {
    format!("00000000-0000-7000-8000-{number:012}")
}

fn dag() -> DagRecord {
    read(json!({
        "dag_id": "hello", "dag_display_name": null, "bundle_name": "dags-folder", "bundle_version": "b1",
        "relative_fileloc": "hello.py", "current_version_id": uuid(1), "is_paused": false, "is_stale": false,
        "has_import_errors": false, "description": "Says hello", "owners": "ann", "tags": ["greeting"],
        "timetable_summary": null, "timetable_description": "Never, external triggers only", "is_scheduled": false,
        "max_active_runs": 16, "max_active_tasks": 16, "max_consecutive_failed_dag_runs": 0, "next_run": null,
        "asset_expression": null, "last_parsed_at": "2026-01-01T00:00:00Z", "last_parse_duration": 0.1,
    }))
}

fn run() -> DagRun {
    read(json!({
        "id": uuid(2), "dag_id": "hello", "run_id": RUN, "run_type": "manual", "state": "failed",
        "logical_date": "2026-01-31T06:30:00Z", "data_interval_start": null, "data_interval_end": null,
        "run_after": "2026-01-31T06:30:00Z", "queued_at": "2026-01-31T06:30:00Z",
        "start_date": "2026-01-31T06:30:01Z", "end_date": "2026-01-31T06:30:04Z", "conf": {"who": "Ada"},
        "triggered_by": "cli", "triggering_user": null, "dag_version_id": uuid(1), "bundle_version": "b1",
        "clear_number": 0, "backfill_id": null, "partition_key": null, "note": null, "unfinished_count": 0,
        "under_way_count": 0, "is_expanded": true, "is_dirty": false, "due_at": null,
        "last_scheduling_decision": null, "change_seq": 1,
    }))
}

fn instance(id: u32, task_id: &str, map_index: i32, state: &str, try_number: i32) -> TaskInstance {
    let has_run = try_number > 0;
    read(json!({
        "id": uuid(id), "dag_run_id": uuid(2), "dag_id": "hello", "run_id": RUN, "task_id": task_id,
        "map_index": map_index, "state": state, "accounted_state": state, "is_dirty": false, "change_seq": 1,
        "try_number": try_number, "max_tries": 1, "epoch": try_number, "lease": null, "scheduled_at": null,
        "queued_at": null, "resend_at": null, "send_count": 0,
        "start_date": has_run.then_some("2026-01-31T06:30:01Z"), "end_date": "2026-01-31T06:30:03.5Z",
        "due_at": null, "pool": "default_pool", "pool_slots": 1, "queue": "default", "priority_weight": 1,
        "executor": null, "operator": "BashOperator", "operator_name": null, "task_display_name": null,
        "rendered_map_index": null, "hostname": null, "pid": null, "next_method": null, "next_kwargs": null,
        "trigger_id": null, "retry_delay_override": null, "retry_reason": null, "dag_version_id": uuid(1),
        "note": null, "updated_at": "2026-01-31T06:30:04Z",
    }))
}

fn operator(task_id: &str, kind: &str, downstream: &[&str], more: &Value) -> Value {
    let mut fields = json!({
        "task_id": task_id, "task_type": kind, "_task_module": "airflow.providers.standard.operators.bash",
        "downstream_task_ids": downstream,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        fields[key] = value.clone();
    }
    json!({ "__type": "operator", "__var": fields })
}

fn group(id: Option<&str>, children: &Value) -> Value {
    json!({
        "_group_id": id, "group_display_name": "", "prefix_group_id": true, "tooltip": "", "children": children,
        "upstream_group_ids": [], "downstream_group_ids": [], "upstream_task_ids": [], "downstream_task_ids": [],
    })
}

/// extract → (load.left, load.right) → report.
fn serialized() -> Value {
    let load = group(
        Some("load"),
        &json!({ "load.left": ["operator", "load.left"], "load.right": ["operator", "load.right"] }),
    );
    json!({ "__version": 3, "dag": {
        "dag_id": "hello", "fileloc": "hello.py", "relative_fileloc": "hello.py", "timezone": "UTC",
        "timetable": { "__type": "airflow.timetables.simple.NullTimetable", "__var": {} },
        "params": [["who", {
            "__class": "airflow.sdk.definitions.param.Param", "default": "world", "description": "whom to greet",
            "schema": { "__type": "dict", "__var": { "type": "string" } },
        }]],
        "task_group": group(None, &json!({
            "extract": ["operator", "extract"], "load": ["taskgroup", load], "report": ["operator", "report"],
        })),
        "tasks": [
            operator("extract", "BashOperator", &["load.left", "load.right"], &json!({ "retries": 2 })),
            operator("load.left", "BashOperator", &["report"], &json!({})),
            operator("load.right", "BashOperator", &["report"], &json!({ "pool": "db" })),
            operator("report", "EmptyOperator", &[], &json!({ "trigger_rule": "all_done", "_is_empty": true })),
        ],
        "dag_dependencies": [], "edge_info": {}, "tags": ["greeting"],
    } })
}
