//! Listing and giving task instances and tries.

use axum::Json;
use gust_model::{MapIndex, TaskId, record::TaskInstance};
use gust_ports::{
    Tx,
    metastore::{Direction, Page, TaskInstanceFilter, TaskInstanceSort, TxMode},
};

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        dag_runs::run_or_404,
        dags::dag_not_found,
        lists::{
            INT_LIST, PAGE, TEXT_LIST, TI_STATES, page, parsed, pattern, range, window, with_time_ranges,
        },
    },
    show::{
        Surroundings, TaskInstanceCollectionResponse, TaskInstanceHistoryCollectionResponse,
        TaskInstanceHistoryResponse, TaskInstanceResponse, collection,
    },
};
use crate::{
    call::Call,
    error::ApiError,
    inputs::{Field, Inputs, Kind, Preset, TEXT, int, optional},
};

pub(super) const LIST: &[Field] = with_time_ranges!(
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

pub(super) const BATCH: &[Field] = with_time_ranges!(
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

pub(super) async fn list(call: Call) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
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

pub(super) async fn batch(call: Call) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
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

pub(super) async fn list_mapped(call: Call) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
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

pub(super) async fn get(call: Call) -> Result<Json<TaskInstanceResponse>, ApiError> {
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

pub(super) async fn get_mapped(call: Call) -> Result<Json<TaskInstanceResponse>, ApiError> {
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

pub(super) async fn tries(call: Call) -> Result<Json<TaskInstanceHistoryCollectionResponse>, ApiError> {
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

pub(super) async fn try_details(call: Call) -> Result<Json<TaskInstanceHistoryResponse>, ApiError> {
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

/// `airflow/api_fastapi/core_api/datamodels/task_instances.py: TaskDependencyResponse`.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskDependencyResponse {
    name: &'static str,
    reason: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TaskDependencyCollectionResponse {
    dependencies: Vec<TaskDependencyResponse>,
}

pub(super) async fn dependencies(call: Call) -> Result<Json<TaskDependencyCollectionResponse>, ApiError> {
    let map_index = call.map_index()?;
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let row = row_or_404(&mut *tx, &call, map_index).await?;
    let dependencies = gust_operations::blocking_dependencies(&mut *tx, &row)
        .await?
        .into_iter()
        .map(|blocking| TaskDependencyResponse { name: blocking.name, reason: blocking.reason })
        .collect();
    Ok(Json(TaskDependencyCollectionResponse { dependencies }))
}
