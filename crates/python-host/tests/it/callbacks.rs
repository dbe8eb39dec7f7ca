//! Callbacks in a child of their own.

use std::collections::BTreeMap;

use gust_python_host::messages::{DagCallbackRequest, DagRunContext, TaskCallbackRequest};
use gust_python_host::{CallbackRequest, Exit, SpawnCallbacks};

use crate::support::{Lab, context, serve, task_instance};

const FILE: &str = r"
import os
from airflow.sdk import DAG, task

def of_task(context):
    os.write(1, ('task ' + context['ti'].task_id + ';').encode())

def of_dag(context):
    os.write(1, ('dag ' + context['run_id'] + ' ' + context['reason'] + ';').encode())

def raises(context):
    raise RuntimeError('callback broke')

with DAG('calls', schedule=None, on_failure_callback=[raises, of_dag]):
    @task(on_failure_callback=of_task)
    def work():
        pass
    work()
";

#[tokio::test]
async fn callbacks_of_tasks_and_runs_are_run() {
    let Some(lab) = Lab::new().await else { return };
    lab.file("calls.py", FILE);
    let requests = vec![
        CallbackRequest::Dag(DagCallbackRequest {
            filepath: "calls.py".into(),
            bundle_name: "lab".into(),
            bundle_version: None,
            msg: Some("task_failure".into()),
            dag_id: "calls".into(),
            run_id: "manual__1".into(),
            context_from_server: Some(DagRunContext {
                dag_run: Some(context("calls").dag_run),
                last_ti: Some(task_instance("calls", "work")),
            }),
            is_failure_callback: true,
        }),
        CallbackRequest::Task(TaskCallbackRequest {
            filepath: "calls.py".into(),
            bundle_name: "lab".into(),
            bundle_version: None,
            msg: Some("killed".into()),
            ti: task_instance("calls", "work"),
            task_callback_type: Some("failed".into()),
            context_from_server: Some(context("calls")),
        }),
    ];
    let callbacks = SpawnCallbacks {
        bundle_path: lab.dags.path().to_owned(),
        bundle_name: "lab".into(),
        rel_path: "calls.py".into(),
        requests,
        env: BTreeMap::new(),
    };
    let story = serve(lab.host.spawn_callbacks(callbacks).await.unwrap()).await;
    assert_eq!(story.stdout, "dag manual__1 task_failure;task work;", "{story:#?}");
    assert!(story.log.contains("callback broke"), "{story:#?}");
    assert_eq!(story.exited.exit, Exit::Code(0));
}
