//! Task instances and their tries.

use std::collections::BTreeMap;

use axum::{Json, http::Method};
use gust_model::{
    DagRunId, MapIndex, TaskId,
    record::{DagRun, TaskInstance, Trigger},
};
use gust_operations::{ClearRequest, MarkRequest, OperationError};
use gust_ports::{
    Tx,
    metastore::{Direction, Page, TaskInstanceFilter, TaskInstanceSort, TimeRange, TxMode},
};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    assets::number,
    dag_runs::{run_not_found, run_or_404},
    dags::{DagVersionResponse, DisplayNames, dag_not_found},
    lists::{INT_LIST, PAGE, TEXT_LIST, TI_STATES, page, parsed, pattern, range, window, with_time_ranges},
};
use crate::{
    call::Call,
    endpoint::Endpoint,
    error::ApiError,
    inputs::{Field, Inputs, Kind, Preset, TEXT, flag, int, optional},
    state::AppState,
    time::Moment,
};

const NOTE: Kind = Kind::Text(1000);
const AT_INDEX: &[Field] = &[int("map_index", -1, -1)];

const LIST: &[Field] = with_time_ranges!(
    [
        int("limit", 0, PAGE),
        int("offset", 0, 0),
        optional("task_id", TEXT),
        optional("task_display_name_pattern", TEXT),
        optional("state", Kind::List(&Kind::Choice(TI_STATES))),
        optional("pool", TEXT_LIST),
        optional("queue", TEXT_LIST),
        optional("operator", TEXT_LIST),
        optional("map_index", INT_LIST),
        optional("order_by", TEXT_LIST),
    ],
    "run_after_gte" "run_after_gt" "run_after_lte" "run_after_lt",
    "logical_date_gte" "logical_date_gt" "logical_date_lte" "logical_date_lt",
    "start_date_gte" "start_date_gt" "start_date_lte" "start_date_lt",
    "end_date_gte" "end_date_gt" "end_date_lte" "end_date_lt",
    "updated_at_gte" "updated_at_gt" "updated_at_lte" "updated_at_lt",
);

const BATCH: &[Field] = with_time_ranges!(
    [
        optional("dag_ids", TEXT_LIST),
        optional("dag_run_ids", TEXT_LIST),
        optional("task_ids", TEXT_LIST),
        optional("state", Kind::List(&Kind::Choice(TI_STATES))),
        optional("pool", TEXT_LIST),
        optional("queue", TEXT_LIST),
        int("page_offset", 0, 0),
        Field { name: "page_limit", kind: Kind::Int(0), is_required: false, default: Preset::Int(100) },
        optional("order_by", TEXT),
    ],
    "run_after_gte" "run_after_gt" "run_after_lte" "run_after_lt",
    "logical_date_gte" "logical_date_gt" "logical_date_lte" "logical_date_lt",
    "start_date_gte" "start_date_gt" "start_date_lte" "start_date_lt",
    "end_date_gte" "end_date_gt" "end_date_lte" "end_date_lt",
);

const PATCH: &[Field] = &[
    optional("new_state", TEXT),
    optional("note", NOTE),
    flag("include_upstream", false),
    flag("include_downstream", false),
    flag("include_future", false),
    flag("include_past", false),
];
const PATCH_QUERY: &[Field] = &[optional("map_index", Kind::Int(-1)), optional("update_mask", TEXT_LIST)];
const MASK: &[Field] = &[optional("update_mask", TEXT_LIST)];

const CLEAR: &[Field] = &[
    flag("dry_run", true),
    optional("start_date", Kind::AwareTime),
    optional("end_date", Kind::AwareTime),
    flag("only_failed", true),
    flag("only_running", false),
    flag("reset_dag_runs", true),
    optional("task_ids", Kind::List(&Kind::TaskRef)),
    optional("dag_run_id", TEXT),
    flag("include_upstream", false),
    flag("include_downstream", false),
    flag("include_future", false),
    flag("include_past", false),
    optional("run_on_latest_version", Kind::Flag),
    flag("prevent_running_task", false),
    optional("note", NOTE),
];

pub(super) fn endpoints() -> Vec<Endpoint> {
    let tag = "Task Instance";
    let all = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances";
    let one = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}";
    let at = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}";
    vec![
        Endpoint::new(Method::GET, all, "get_task_instances", list)
            .about(tag, "Lists the task instances of a run; ~ stands for all DAGs or runs.")
            .query(LIST)
            .answers::<TaskInstanceCollectionResponse>(),
        Endpoint::new(
            Method::POST,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/list",
            "get_task_instances_batch",
            batch,
        )
        .about(tag, "Lists the task instances of several runs.")
        .body(BATCH)
        .answers::<TaskInstanceCollectionResponse>(),
        Endpoint::new(Method::GET, one, "get_task_instance", get)
            .about(tag, "Gives a task instance that is not mapped.")
            .answers::<TaskInstanceResponse>(),
        Endpoint::new(Method::PATCH, one, "patch_task_instance", patch)
            .about(tag, "Marks a task instance, or sets its note.")
            .query(PATCH_QUERY)
            .body(PATCH)
            .answers::<TaskInstanceCollectionResponse>(),
        Endpoint::new(
            Method::PATCH,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/dry_run",
            "patch_task_instance_dry_run",
            patch_dry_run,
        )
        .about(tag, "Says what a mark would change.")
        .query(PATCH_QUERY)
        .body(PATCH)
        .answers::<TaskInstanceCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/listMapped",
            "get_mapped_task_instances",
            list_mapped,
        )
        .about(tag, "Lists the instances of a mapped task.")
        .query(LIST)
        .answers::<TaskInstanceCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/tries",
            "get_task_instance_tries",
            tries,
        )
        .about(tag, "Lists the tries of a task instance.")
        .query(AT_INDEX)
        .answers::<TaskInstanceHistoryCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/tries/{task_try_number}",
            "get_task_instance_try_details",
            try_details,
        )
        .about(tag, "Gives a try of a task instance.")
        .query(AT_INDEX)
        .answers::<TaskInstanceHistoryResponse>(),
        Endpoint::new(Method::GET, at, "get_mapped_task_instance", get_mapped)
            .about(tag, "Gives a mapped task instance.")
            .answers::<TaskInstanceResponse>(),
        Endpoint::new(Method::PATCH, at, "patch_task_instance_by_map_index", patch)
            .about(tag, "Marks a mapped task instance, or sets its note.")
            .query(MASK)
            .body(PATCH)
            .answers::<TaskInstanceCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/tries",
            "get_mapped_task_instance_tries",
            tries,
        )
        .about(tag, "Lists the tries of a mapped task instance.")
        .answers::<TaskInstanceHistoryCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/tries/{task_try_number}",
            "get_mapped_task_instance_try_details",
            try_details,
        )
        .about(tag, "Gives a try of a mapped task instance.")
        .answers::<TaskInstanceHistoryResponse>(),
        Endpoint::new(
            Method::POST,
            "/api/v2/dags/{dag_id}/clearTaskInstances",
            "post_clear_task_instances",
            clear,
        )
        .about(tag, "Runs task instances again, or says which would run again.")
        .body(CLEAR)
        .answers::<TaskInstanceCollectionResponse>(),
    ]
}

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
struct TaskInstanceResponse {
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
pub(super) struct TaskInstanceCollectionResponse {
    task_instances: Vec<TaskInstanceResponse>,
    total_entries: u64,
    total_entries_limit: Option<u64>,
    next_cursor: Option<String>,
    previous_cursor: Option<String>,
}

/// `airflow/api_fastapi/core_api/datamodels/task_instance_history.py: TaskInstanceHistoryResponse`.
#[derive(Serialize, ToSchema)]
struct TaskInstanceHistoryResponse {
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
struct TaskInstanceHistoryCollectionResponse {
    task_instances: Vec<TaskInstanceHistoryResponse>,
    total_entries: usize,
}

/// What rows are shown with: their runs and their DAGs' names, each asked for once.
#[derive(Default)]
struct Surroundings {
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

    async fn show(
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

    async fn show_try(
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

async fn collection(
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
pub(super) async fn collection_of(
    state: &AppState,
    rows: &[TaskInstance],
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    collection(state, &mut *tx, rows, rows.len() as u64).await
}

fn column(name: &str) -> Option<TaskInstanceSort> {
    Some(match name {
        // Rows are made in the order of their ids; the port breaks ties by them.
        "id" | "map_index" | "rendered_map_index" => TaskInstanceSort::MapIndex,
        "task_id" => TaskInstanceSort::TaskId,
        "state" => TaskInstanceSort::State,
        "start_date" => TaskInstanceSort::StartDate,
        "end_date" => TaskInstanceSort::EndDate,
        "logical_date" => TaskInstanceSort::LogicalDate,
        "run_after" => TaskInstanceSort::RunAfter,
        "try_number" => TaskInstanceSort::TryNumber,
        "queued_when" => TaskInstanceSort::QueuedAt,
        _ => return None,
    })
}

fn times(inputs: &Inputs, filter: TaskInstanceFilter) -> TaskInstanceFilter {
    TaskInstanceFilter {
        states: parsed(inputs, "state"),
        pools: inputs.texts("pool").map(Into::into).collect(),
        queues: inputs.texts("queue").map(Into::into).collect(),
        operators: inputs.texts("operator").map(str::to_owned).collect(),
        logical_date: range(inputs, "logical_date"),
        run_after: range(inputs, "run_after"),
        start_date: range(inputs, "start_date"),
        end_date: range(inputs, "end_date"),
        updated_at: range(inputs, "updated_at"),
        ..filter
    }
}

fn by_index() -> Vec<(TaskInstanceSort, Direction)> {
    vec![(TaskInstanceSort::MapIndex, Direction::Ascending)]
}

fn query_filter(call: &Call) -> Result<TaskInstanceFilter, ApiError> {
    let query = &call.query;
    Ok(times(
        query,
        TaskInstanceFilter {
            dag_ids: call.one_dag().into_iter().collect(),
            run_ids: call.one_run().into_iter().collect(),
            task_ids: query.text("task_id").map(TaskId::from).into_iter().collect(),
            name_contains: pattern(query, "task_display_name_pattern")?,
            map_indexes: query
                .list("map_index")
                .iter()
                .filter_map(|index| i32::try_from(index.as_i64()?).ok())
                .map(MapIndex)
                .collect(),
            ..TaskInstanceFilter::default()
        },
    ))
}

async fn list(call: Call) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let page = query_page(&call)?;
    let filter = query_filter(&call)?;
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    match (call.one_dag(), call.one_run()) {
        (Some(dag_id), Some(run_id)) => {
            run_or_404(&mut *tx, &dag_id, &run_id).await.map_err(|error| match error {
                ApiError::Status(..) => ApiError::not_found(format!(
                    "DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found"
                )),
                other => other,
            })?;
        }
        (None, Some(_)) => {
            return Err(ApiError::bad_request("dag_id is required when dag_run_id is specified"));
        }
        (Some(dag_id), None) => {
            tx.dag(&dag_id).await?.ok_or_else(|| dag_not_found(&dag_id))?;
        }
        (None, None) => {}
    }
    let found = tx.task_instances(&filter, &page).await?;
    collection(&call.state, &mut *tx, &found.items, found.total).await
}

fn query_page(call: &Call) -> Result<Page<TaskInstanceSort>, ApiError> {
    page(window(&call.query, "limit", "offset"), call.query.texts("order_by"), by_index(), column)
}

async fn batch(call: Call) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let body = &call.body;
    if call.one_dag().is_some() || call.one_run().is_some() {
        return Err(ApiError::bad_request("list takes ~ as DAG and as run; name them in the body"));
    }
    let order = body.text("order_by").into_iter();
    let page = page(window(body, "page_limit", "page_offset"), order, by_index(), column)?;
    let filter = times(
        body,
        TaskInstanceFilter {
            dag_ids: body.texts("dag_ids").map(Into::into).collect(),
            run_ids: body.texts("dag_run_ids").map(Into::into).collect(),
            task_ids: body.texts("task_ids").map(Into::into).collect(),
            ..TaskInstanceFilter::default()
        },
    );
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let found = tx.task_instances(&filter, &page).await?;
    collection(&call.state, &mut *tx, &found.items, found.total).await
}

async fn list_mapped(call: Call) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let (dag_id, run_id, task_id) = (call.dag_id(), call.run_id(), call.task_id());
    let page = query_page(&call)?;
    let mut filter = query_filter(&call)?;
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let run = run_or_404(&mut *tx, &dag_id, &run_id).await?;
    let mapped: Vec<MapIndex> = tx
        .task_instances_of(run.id, std::slice::from_ref(&task_id))
        .await?
        .iter()
        .map(|row| row.map_index)
        .filter(|index| index.is_mapped())
        .collect();
    if mapped.is_empty() {
        let graph = call.state.graph(&mut *tx, run.dag_version_id).await?;
        let task = graph.as_ref().and_then(|graph| graph.dag.index_of(task_id.as_str()));
        let needs_expansion = match (&graph, task) {
            (Some(graph), Some(task)) => graph.dag.task(task).needs_expansion,
            _ => return Err(ApiError::not_found(format!("Task id {task_id} not found"))),
        };
        if !needs_expansion {
            return Err(ApiError::not_found(format!("Task id {task_id} is not mapped")));
        }
        return collection(&call.state, &mut *tx, &[], 0).await;
    }
    filter.task_ids = vec![task_id];
    filter.map_indexes = if filter.map_indexes.is_empty() {
        mapped
    } else {
        mapped.into_iter().filter(|index| filter.map_indexes.contains(index)).collect()
    };
    if filter.map_indexes.is_empty() {
        return collection(&call.state, &mut *tx, &[], 0).await;
    }
    let found = tx.task_instances(&filter, &page).await?;
    collection(&call.state, &mut *tx, &found.items, found.total).await
}

/// The row at an index, or Airflow's 404.
pub(super) async fn row_or_404(
    tx: &mut dyn Tx,
    call: &Call,
    map_index: MapIndex,
) -> Result<TaskInstance, ApiError> {
    let (dag_id, run_id, task_id) = (call.dag_id(), call.run_id(), call.task_id());
    let missing = || {
        ApiError::not_found(format!(
            "The Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}`, task_id: `{task_id}` and map_index: \
             `{map_index}` was not found"
        ))
    };
    let run = tx.dag_run(&dag_id, &run_id).await?.ok_or_else(missing)?;
    tx.task_instance_at(run.id, &task_id, map_index).await?.ok_or_else(missing)
}

async fn get(call: Call) -> Result<Json<TaskInstanceResponse>, ApiError> {
    let (dag_id, run_id, task_id) = (call.dag_id(), call.run_id(), call.task_id());
    let missing = || {
        ApiError::not_found(format!(
            "The Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}` and task_id: `{task_id}` was not found"
        ))
    };
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let run = tx.dag_run(&dag_id, &run_id).await?.ok_or_else(missing)?;
    let rows = tx.task_instances_of(run.id, std::slice::from_ref(&task_id)).await?;
    let Some(row) = rows.iter().find(|row| !row.map_index.is_mapped()) else {
        return Err(if rows.is_empty() {
            missing()
        } else {
            ApiError::not_found("Task instance is mapped, add the map_index value to the URL")
        });
    };
    Ok(Json(Surroundings::default().show(&call.state, &mut *tx, row).await?))
}

async fn get_mapped(call: Call) -> Result<Json<TaskInstanceResponse>, ApiError> {
    let map_index = call.map_index()?;
    let (dag_id, run_id, task_id) = (call.dag_id(), call.run_id(), call.task_id());
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let row = row_or_404(&mut *tx, &call, map_index).await.map_err(|error| match error {
        ApiError::Status(..) => ApiError::not_found(format!(
            "The Mapped Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}`, task_id: `{task_id}`, and \
             map_index: `{map_index}` was not found"
        )),
        other => other,
    })?;
    Ok(Json(Surroundings::default().show(&call.state, &mut *tx, &row).await?))
}

async fn all_tries(tx: &mut dyn Tx, call: &Call, map_index: MapIndex) -> Result<Vec<TaskInstance>, ApiError> {
    let row = row_or_404(tx, call, map_index).await?;
    let mut tries = tx.tries(row.id).await?;
    // What waits for its next try shows its last one, which is kept already once it was cleared.
    if !tries.iter().any(|kept| kept.try_number == row.try_number) && row.try_number > 0 {
        tries.push(row);
    }
    Ok(tries)
}

async fn tries(call: Call) -> Result<Json<TaskInstanceHistoryCollectionResponse>, ApiError> {
    let map_index = call.map_index()?;
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let rows = all_tries(&mut *tx, &call, map_index).await?;
    let mut surroundings = Surroundings::default();
    let mut task_instances = Vec::with_capacity(rows.len());
    for row in &rows {
        task_instances.push(surroundings.show_try(&call.state, &mut *tx, row).await?);
    }
    Ok(Json(TaskInstanceHistoryCollectionResponse { total_entries: task_instances.len(), task_instances }))
}

async fn try_details(call: Call) -> Result<Json<TaskInstanceHistoryResponse>, ApiError> {
    let map_index = call.map_index()?;
    let number: i32 = call.number("task_try_number")?;
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let found = all_tries(&mut *tx, &call, map_index).await?.into_iter().find(|row| row.try_number == number);
    let Some(row) = found else {
        return Err(ApiError::not_found(format!(
            "The Task Instance with dag_id: `{}`, run_id: `{}`, task_id: `{}`, try_number: `{number}` and map_index: \
             `{map_index}` was not found",
            call.dag_id(),
            call.run_id(),
            call.task_id()
        )));
    };
    Ok(Json(Surroundings::default().show_try(&call.state, &mut *tx, &row).await?))
}

/// The index that a patch is for: the path's, the query's, or all.
fn patched_index(call: &Call) -> Result<Option<MapIndex>, ApiError> {
    if !call.segment("map_index").is_empty() || call.query.int("map_index").is_some() {
        return call.map_index().map(Some);
    }
    Ok(None)
}

fn new_state(call: &Call) -> Result<Option<gust_model::TaskInstanceState>, ApiError> {
    if !call.body.is_given("new_state") {
        return Ok(None);
    }
    let Some(text) = call.body.text("new_state") else {
        return Err(ApiError::invalid_body("'new_state' should not be empty", &call.raw_body));
    };
    let text = text.to_lowercase();
    if !["success", "failed", "skipped"].contains(&text.as_str()) {
        let message = format!("Value error, '{text}' is not one of ['success', 'failed', 'skipped']");
        return Err(ApiError::Invalid(vec![json!({
            "type": "value_error", "loc": ["body", "new_state"], "msg": message, "input": text,
        })]));
    }
    Ok(text.parse().ok())
}

async fn patch_dry_run(call: Call) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let index = patched_index(&call)?;
    let rows = match new_state(&call)? {
        Some(state) => mark(&call, index, state, true).await?,
        None => Vec::new(),
    };
    collection_of(&call.state, &rows).await
}

async fn mark(
    call: &Call,
    index: Option<MapIndex>,
    state: gust_model::TaskInstanceState,
    dry_run: bool,
) -> Result<Vec<TaskInstance>, ApiError> {
    let body = &call.body;
    let (dag_id, task_id) = (call.dag_id(), call.task_id());
    let request = MarkRequest {
        dag_id: dag_id.clone(),
        run_id: call.run_id(),
        task_id: task_id.clone(),
        map_indexes: index.map(|index| vec![index]),
        state,
        with_upstream: body.is_set("include_upstream"),
        with_downstream: body.is_set("include_downstream"),
        with_past: body.is_set("include_past"),
        with_future: body.is_set("include_future"),
        dry_run,
    };
    gust_operations::set_task_instance_state(call.state.ports(), request).await.map_err(|error| match error {
        OperationError::TaskNotFound { .. } => {
            ApiError::not_found(format!("Task '{task_id}' not found in Dag '{dag_id}'"))
        }
        other => other.into(),
    })
}

async fn patch(call: Call) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let mask: Vec<&str> = call.query.texts("update_mask").collect();
    let is_wanted = |name: &str| call.body.is_given(name) && (mask.is_empty() || mask.contains(&name));
    let index = patched_index(&call)?;
    let state = new_state(&call)?;
    {
        // What is not there is said before anything changes.
        let mut tx = call.state.metastore.begin(TxMode::Read).await?;
        match index {
            Some(index) => {
                row_or_404(&mut *tx, &call, index).await?;
            }
            None => {
                let run = run_or_404(&mut *tx, &call.dag_id(), &call.run_id()).await?;
                if tx.task_instances_of(run.id, &[call.task_id()]).await?.is_empty() {
                    row_or_404(&mut *tx, &call, MapIndex::UNMAPPED).await?;
                }
            }
        }
    }
    let mut rows = Vec::new();
    if is_wanted("new_state")
        && let Some(state) = state
    {
        rows = mark(&call, index, state, false).await?;
        if rows.is_empty() {
            return Err(ApiError::conflict(format!(
                "Task id {} is already in {state} state",
                call.task_id()
            )));
        }
    }
    if is_wanted("note") {
        let note = call.body.owned("note");
        let noted = gust_operations::set_task_instance_note(
            call.state.ports(),
            call.dag_id(),
            call.run_id(),
            call.task_id(),
            index,
            note,
        )
        .await?;
        rows.retain(|row| !noted.iter().any(|other| other.id == row.id));
        rows.extend(noted);
    }
    if rows.is_empty() {
        let mut tx = call.state.metastore.begin(TxMode::Read).await?;
        let run = run_or_404(&mut *tx, &call.dag_id(), &call.run_id()).await?;
        rows = tx.task_instances_of(run.id, &[call.task_id()]).await?;
        rows.retain(|row| index.is_none_or(|index| row.map_index == index));
    }
    collection_of(&call.state, &rows).await
}

fn clear_request(call: &Call) -> Result<ClearRequest, ApiError> {
    let body = &call.body;
    let refuse = |text: &str| Err(ApiError::invalid_body(text, &call.raw_body));
    let (start, end) = (body.time("start_date"), body.time("end_date"));
    let run_id = body.text("dag_run_id");
    if body.is_set("only_failed") && body.is_set("only_running") {
        // only_failed is on unless it is turned off; Airflow refuses only what was asked for in so many words.
        if body.is_given("only_failed") {
            return refuse("only_failed and only_running both are set to True");
        }
    }
    if start.is_some() && end.is_some() && start > end {
        return refuse("end_date is sooner than start_date");
    }
    if run_id.is_some() && (start.is_some() || end.is_some()) {
        return refuse("Exactly one of dag_run_id or (start_date and end_date) must be provided");
    }
    if body.value("task_ids").is_some() && body.list("task_ids").is_empty() {
        return refuse("task_ids list should have at least 1 element.");
    }
    let tasks = body.value("task_ids").map(|_| {
        body.list("task_ids")
            .iter()
            .filter_map(|task| match task {
                Value::String(task_id) => Some((TaskId::from(task_id.as_str()), None)),
                Value::Array(pair) => {
                    let index = i32::try_from(pair.get(1)?.as_i64()?).ok()?;
                    Some((TaskId::from(pair.first()?.as_str()?), Some(MapIndex(index))))
                }
                _ => None,
            })
            .collect()
    });
    Ok(ClearRequest {
        dag_id: call.dag_id(),
        run_id: run_id.map(Into::into),
        dates: TimeRange { gte: start, lte: end, ..TimeRange::default() },
        tasks,
        with_upstream: body.is_set("include_upstream"),
        with_downstream: body.is_set("include_downstream"),
        with_past: body.is_set("include_past"),
        with_future: body.is_set("include_future"),
        only_failed: body.is_set("only_failed"),
        only_running: body.is_set("only_running"),
        reset_dag_runs: body.is_set("reset_dag_runs"),
        run_on_latest_version: body.flag("run_on_latest_version"),
        prevent_running_task: body.is_set("prevent_running_task"),
        dry_run: body.is_set("dry_run"),
        note: body.owned("note"),
    })
}

async fn clear(call: Call) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let request = clear_request(&call)?;
    let (dag_id, run_id) = (request.dag_id.clone(), request.run_id.clone());
    let rows = gust_operations::clear_task_instances(call.state.ports(), request).await.map_err(|error| {
        match (error, run_id) {
            (OperationError::DagNotFound(_), _) => dag_not_found(&dag_id),
            (OperationError::RunNotFound { .. }, Some(run_id)) => {
                ApiError::not_found(format!("Dag Run id {run_id} not found in dag {dag_id}"))
            }
            (other, _) => other.into(),
        }
    })?;
    collection_of(&call.state, &rows).await
}
