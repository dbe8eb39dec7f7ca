//! Task instances and tries as Airflow shows them.

use std::collections::BTreeMap;

use axum::Json;
use gust_model::{
    DagRunId,
    record::{DagRun, TaskInstance, Trigger},
};
use gust_ports::{Tx, metastore::TxMode};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::{
    assets::number,
    dag_runs::run_not_found,
    dags::{DagVersionResponse, DisplayNames},
};
use crate::{error::ApiError, state::AppState, time::Moment};

/// `airflow/api_fastapi/core_api/datamodels/trigger.py: TriggerResponse`.
#[derive(Serialize, ToSchema)]
struct TriggerResponse {
    id: u64,
    classpath: String,
    kwargs: String,
    created_date: Moment,
    queue: Option<String>,
    triggerer_id: Option<u64>,
}

/// `airflow/api_fastapi/core_api/datamodels/task_instances.py: TaskInstanceResponse`.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskInstanceResponse {
    id: String,
    task_id: String,
    dag_id: String,
    dag_run_id: String,
    map_index: i32,
    logical_date: Option<Moment>,
    run_after: Moment,
    start_date: Option<Moment>,
    end_date: Option<Moment>,
    duration: Option<f64>,
    state: Option<&'static str>,
    try_number: i32,
    max_tries: i32,
    task_display_name: String,
    dag_display_name: String,
    hostname: Option<String>,
    unixname: Option<String>,
    pool: String,
    pool_slots: i32,
    queue: Option<String>,
    priority_weight: Option<i64>,
    operator: Option<String>,
    operator_name: Option<String>,
    queued_when: Option<Moment>,
    scheduled_when: Option<Moment>,
    pid: Option<i32>,
    executor: Option<String>,
    executor_config: String,
    note: Option<String>,
    rendered_map_index: Option<String>,
    rendered_fields: Value,
    trigger: Option<TriggerResponse>,
    triggerer_job: Option<Value>,
    dag_version: Option<DagVersionResponse>,
}

#[derive(Serialize, ToSchema)]
pub(in crate::api) struct TaskInstanceCollectionResponse {
    task_instances: Vec<TaskInstanceResponse>,
    total_entries: u64,
    total_entries_limit: Option<u64>,
    next_cursor: Option<String>,
    previous_cursor: Option<String>,
}

/// `airflow/api_fastapi/core_api/datamodels/task_instance_history.py: TaskInstanceHistoryResponse`.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskInstanceHistoryResponse {
    task_id: String,
    dag_id: String,
    dag_run_id: String,
    map_index: i32,
    start_date: Option<Moment>,
    end_date: Option<Moment>,
    duration: Option<f64>,
    state: Option<&'static str>,
    try_number: i32,
    max_tries: i32,
    task_display_name: String,
    dag_display_name: String,
    hostname: Option<String>,
    unixname: Option<String>,
    pool: String,
    pool_slots: i32,
    queue: Option<String>,
    priority_weight: Option<i64>,
    operator: Option<String>,
    operator_name: Option<String>,
    queued_when: Option<Moment>,
    scheduled_when: Option<Moment>,
    pid: Option<i32>,
    executor: Option<String>,
    executor_config: String,
    dag_version: Option<DagVersionResponse>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TaskInstanceHistoryCollectionResponse {
    pub(super) task_instances: Vec<TaskInstanceHistoryResponse>,
    pub(super) total_entries: usize,
}

/// What rows are shown with: their runs and their DAGs' names, each asked for once.
#[derive(Default)]
pub(super) struct Surroundings {
    runs: BTreeMap<DagRunId, DagRun>,
    names: DisplayNames,
}

impl Surroundings {
    async fn run(&mut self, tx: &mut dyn Tx, row: &TaskInstance) -> Result<DagRun, ApiError> {
        if let Some(run) = self.runs.get(&row.dag_run_id) {
            return Ok(run.clone());
        }
        let run =
            tx.dag_run_by_id(row.dag_run_id).await?.ok_or_else(|| run_not_found(&row.dag_id, &row.run_id))?;
        self.runs.insert(run.id, run.clone());
        Ok(run)
    }

    pub(super) async fn show(
        &mut self,
        state: &AppState,
        tx: &mut dyn Tx,
        row: &TaskInstance,
    ) -> Result<TaskInstanceResponse, ApiError> {
        let run = self.run(tx, row).await?;
        let rendered_fields = tx.rendered_fields(row.id).await?.unwrap_or_else(|| json!({}));
        let trigger = match row.trigger_id {
            Some(id) => tx.trigger(id).await?.as_ref().map(trigger),
            None => None,
        };
        let past = self.show_try(state, tx, row).await?;
        Ok(TaskInstanceResponse {
            id: row.id.to_string(),
            task_id: past.task_id,
            dag_id: past.dag_id,
            dag_run_id: past.dag_run_id,
            map_index: past.map_index,
            logical_date: run.logical_date.map(Moment),
            run_after: run.run_after.into(),
            start_date: past.start_date,
            end_date: past.end_date,
            duration: past.duration,
            state: past.state,
            try_number: past.try_number,
            max_tries: past.max_tries,
            task_display_name: past.task_display_name,
            dag_display_name: past.dag_display_name,
            hostname: past.hostname,
            unixname: past.unixname,
            pool: past.pool,
            pool_slots: past.pool_slots,
            queue: past.queue,
            priority_weight: past.priority_weight,
            operator: past.operator,
            operator_name: past.operator_name,
            queued_when: past.queued_when,
            scheduled_when: past.scheduled_when,
            pid: past.pid,
            executor: past.executor,
            executor_config: past.executor_config,
            note: row.note.clone(),
            rendered_map_index: row
                .rendered_map_index
                .clone()
                .or_else(|| row.map_index.is_mapped().then(|| row.map_index.to_string())),
            rendered_fields,
            trigger,
            triggerer_job: None,
            dag_version: past.dag_version,
        })
    }

    pub(super) async fn show_try(
        &mut self,
        state: &AppState,
        tx: &mut dyn Tx,
        row: &TaskInstance,
    ) -> Result<TaskInstanceHistoryResponse, ApiError> {
        let name = self.names.get(tx, &row.dag_id).await?;
        let graph = state.graph(tx, row.dag_version_id).await?;
        let config = graph.as_ref().and_then(|graph| {
            let task = graph.dag.index_of(row.task_id.as_str())?;
            Some(graph.dag.task(task).executor_config.clone()).filter(|config| !config.is_null())
        });
        Ok(TaskInstanceHistoryResponse {
            task_id: row.task_id.to_string(),
            dag_id: row.dag_id.to_string(),
            dag_run_id: row.run_id.to_string(),
            map_index: row.map_index.0,
            start_date: row.start_date.map(Moment),
            end_date: row.end_date.map(Moment),
            duration: row.duration(),
            state: row.state.as_airflow(),
            try_number: row.try_number,
            max_tries: row.max_tries,
            task_display_name: row.task_display_name.clone().unwrap_or_else(|| row.task_id.to_string()),
            dag_version: graph.map(|graph| DagVersionResponse::of(&graph.version, &name)),
            dag_display_name: name,
            hostname: Some(row.hostname.clone().unwrap_or_default()),
            unixname: None,
            pool: row.pool.to_string(),
            pool_slots: row.pool_slots,
            queue: Some(row.queue.to_string()),
            priority_weight: Some(row.priority_weight),
            operator: Some(row.operator.clone()),
            operator_name: Some(row.operator_name.clone().unwrap_or_else(|| row.operator.clone())),
            queued_when: row.queued_at.map(Moment),
            scheduled_when: row.scheduled_at.map(Moment),
            pid: row.pid,
            executor: row.executor.clone(),
            executor_config: config.map_or_else(|| "{}".to_owned(), |config| config.to_string()),
        })
    }
}

fn trigger(trigger: &Trigger) -> TriggerResponse {
    TriggerResponse {
        id: number(trigger.id.0),
        classpath: trigger.classpath.clone(),
        kwargs: trigger.kwargs.to_string(),
        created_date: trigger.created_at.into(),
        queue: None,
        triggerer_id: None,
    }
}

pub(super) async fn collection(
    state: &AppState,
    tx: &mut dyn Tx,
    rows: &[TaskInstance],
    total_entries: u64,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let mut surroundings = Surroundings::default();
    let mut task_instances = Vec::with_capacity(rows.len());
    for row in rows {
        task_instances.push(surroundings.show(state, tx, row).await?);
    }
    Ok(Json(TaskInstanceCollectionResponse {
        task_instances,
        total_entries,
        total_entries_limit: None,
        next_cursor: None,
        previous_cursor: None,
    }))
}

/// Rows as a collection of their own.
pub(in crate::api) async fn collection_of(
    state: &AppState,
    rows: &[TaskInstance],
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    collection(state, &mut *tx, rows, rows.len() as u64).await
}
