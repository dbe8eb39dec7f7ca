//! DAG folders, start-up details and a supervisor that answers little.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::Utc;
use gust_python_host::messages::{
    BundleInfo, DagRun, FromTask, InactiveAssetsResult, Reply, StartupDetails, TIRunContext, TaskInstance,
    ToTask, XComResult,
};
use gust_python_host::{Child, Event, Exited, Host, HostConfig, SpawnTask};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

/// A host with an environment and a scratch home, or `None` where the machine has no Python for it.
pub struct Lab {
    pub host: Host,
    pub dags: TempDir,
    _home: TempDir,
}

impl Lab {
    pub async fn new() -> Option<Self> {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut HostConfig)) -> Option<Self> {
        let environment = gust_python_host::testing::environment().await?;
        let home = TempDir::new().unwrap();
        let mut config = HostConfig::new(environment, home.path());
        change(&mut config);
        Some(Self { host: Host::new(config).unwrap(), dags: TempDir::new().unwrap(), _home: home })
    }

    /// Writes a DAG file `NAME.py` with a DAG `NAME` whose body stands in `with DAG(...)`.
    pub fn dag(&self, name: &str, top: &str, body: &str) {
        let body = body.replace('\n', "\n    ");
        let text = format!(
            "from airflow.sdk import DAG, task, Variable\n{top}\nwith DAG('{name}', schedule=None):\n    {body}\n"
        );
        self.file(&format!("{name}.py"), &text);
    }

    pub fn file(&self, path: &str, text: &str) {
        let path = self.dags.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub async fn task(&self, dag_id: &str, task_id: &str) -> Child {
        self.host.spawn_task(spawn(self.dags.path(), dag_id, task_id)).await.unwrap()
    }
}

pub fn spawn(dags: &Path, dag_id: &str, task_id: &str) -> SpawnTask {
    SpawnTask {
        bundle_path: dags.to_owned(),
        startup: StartupDetails {
            ti: task_instance(dag_id, task_id),
            dag_rel_path: format!("{dag_id}.py"),
            bundle_info: BundleInfo { name: "lab".into(), version: Some("v1".into()) },
            start_date: Utc::now(),
            ti_context: context(dag_id),
            sentry_integration: String::new(),
        },
        env: BTreeMap::new(),
    }
}

pub fn task_instance(dag_id: &str, task_id: &str) -> TaskInstance {
    TaskInstance {
        id: Uuid::now_v7(),
        task_id: task_id.into(),
        dag_id: dag_id.into(),
        run_id: "manual__1".into(),
        try_number: 1,
        dag_version_id: Uuid::now_v7(),
        map_index: -1,
        hostname: None,
        context_carrier: None,
        queue: "default".into(),
    }
}

pub fn context(dag_id: &str) -> TIRunContext {
    let now = Utc::now();
    TIRunContext {
        dag_run: DagRun {
            dag_id: dag_id.into(),
            run_id: "manual__1".into(),
            logical_date: Some(now),
            data_interval_start: Some(now),
            data_interval_end: Some(now),
            run_after: now,
            start_date: Some(now),
            end_date: None,
            clear_number: 0,
            run_type: "manual".into(),
            state: "running".into(),
            conf: None,
            triggering_user_name: None,
            consumed_asset_events: Vec::new(),
            partition_key: None,
            partition_date: None,
            note: None,
            team_name: None,
        },
        task_reschedule_count: 0,
        max_tries: 0,
        variables: Vec::new(),
        connections: Vec::new(),
        next_method: None,
        next_kwargs: Value::Null,
        xcom_keys_to_clear: Vec::new(),
        should_retry: false,
        start_date: None,
    }
}

/// All that a child did.
#[derive(Debug)]
pub struct Story {
    pub requests: Vec<FromTask>,
    pub log: String,
    pub stdout: String,
    pub stderr: String,
    pub exited: Exited,
}

impl Story {
    pub fn kinds(&self) -> Vec<&str> {
        self.requests.iter().map(FromTask::kind).collect()
    }
}

/// Serves a child to its end.
pub async fn serve(child: Child) -> Story {
    serve_with(child, |_| None).await
}

/// Serves a child; `answer` may take a request, else a plain answer is given.
pub async fn serve_with(mut child: Child, mut answer: impl FnMut(&FromTask) -> Option<Reply>) -> Story {
    let (mut requests, mut log, mut stdout, mut stderr) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    while let Some(event) = child.next_event().await {
        match event {
            Event::Request(request) => {
                let reply = answer(&request.body).unwrap_or_else(|| plain(&request.body));
                // A child that is killed meanwhile takes no reply.
                let _ = child.reply(request.id, reply).await;
                requests.push(request.body);
            }
            Event::Log(line) => {
                log.extend_from_slice(&line);
                log.push(b'\n');
            }
            Event::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            Event::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            Event::Broken(problem) => panic!("{problem}"),
            Event::Exited(exited) => {
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                return Story {
                    requests,
                    log: text(log),
                    stdout: text(stdout),
                    stderr: text(stderr),
                    exited,
                };
            }
        }
    }
    panic!("the child's events ended without its exit");
}

fn plain(request: &FromTask) -> Reply {
    match request {
        FromTask::ValidateInletsAndOutlets(_) => {
            ToTask::InactiveAssetsResult(InactiveAssetsResult { inactive_assets: Some(Vec::new()) }).into()
        }
        FromTask::GetXCom(asked) => {
            ToTask::XComResult(XComResult { key: asked.key.clone(), value: Value::Null }).into()
        }
        _ => Reply::Empty,
    }
}

/// Waits until no process has this id any more.
pub async fn gone(pid: u32) {
    let process = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    while is_alive(process) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn is_alive(pid: nix::unistd::Pid) -> bool {
    // A zombie that nobody has reaped yet is dead as well.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    nix::sys::signal::kill(pid, None).is_ok() && !state.contains(") Z ")
}
