//! Marking, noting and clearing task instances.

use axum::Json;
use gust_model::{MapIndex, TaskId, record::TaskInstance};
use gust_operations::{ClearRequest, MarkRequest, OperationError};
use gust_ports::metastore::{TimeRange, TxMode};
use serde_json::{Value, json};

use super::{
    super::{dag_runs::run_or_404, dags::dag_not_found, lists::TEXT_LIST},
    reading::row_or_404,
    show::{TaskInstanceCollectionResponse, collection_of},
};
use crate::{
    call::Call,
    error::ApiError,
    inputs::{Field, Kind, TEXT, flag, optional},
};

const NOTE: Kind = Kind::Text(1000);

pub(super) const PATCH: &[Field] = &[
    optional("new_state", TEXT),
    optional("note", NOTE),
    flag("include_upstream", false),
    flag("include_downstream", false),
    flag("include_future", false),
    flag("include_past", false),
];

pub(super) const PATCH_QUERY: &[Field] =
    &[optional("map_index", Kind::Int(-1)), optional("update_mask", TEXT_LIST)];

pub(super) const MASK: &[Field] = &[optional("update_mask", TEXT_LIST)];

pub(super) const CLEAR: &[Field] = &[
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

pub(super) async fn patch_dry_run(call: Call) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
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

pub(super) async fn patch(call: Call) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let mask: Vec<&str> = call.query.texts("update_mask").collect();
    let is_wanted = |name: &str| call.body.is_given(name) && (mask.is_empty() || mask.contains(&name));
    let index = patched_index(&call)?;
    let state = new_state(&call)?;
    {
        // What is not there is said before anything changes.
        let mut tx = call.state.metastore.begin(TxMode::Read).await?;
        if let Some(index) = index {
            row_or_404(&mut *tx, &call, index).await?;
        } else {
            let run = run_or_404(&mut *tx, &call.dag_id(), &call.run_id()).await?;
            if tx.task_instances_of(run.id, &[call.task_id()]).await?.is_empty() {
                row_or_404(&mut *tx, &call, MapIndex::UNMAPPED).await?;
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

pub(super) async fn clear(call: Call) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
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
