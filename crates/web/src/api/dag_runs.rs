//! DAG runs.

use axum::{
    Json,
    body::Body,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use gust_model::{
    DagId, DagRunType, RunId, TriggeredBy,
    record::{DagRun, Timestamp},
};
use gust_operations::{ClearRequest, ClearRunRequest, TriggerRequest};
use gust_ports::{
    Tx,
    metastore::{DagRunFilter, DagRunSort, Direction, Page, TxMode, XComFilter},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    dags::{DagVersionResponse, DisplayNames, dag_or_404},
    lists::{PAGE, RUN_STATES, RUN_TYPES, TEXT_LIST, page, parsed, pattern, range, window, with_time_ranges},
    task_instances,
};
use crate::{
    call::Call,
    endpoint::Endpoint,
    error::ApiError,
    inputs::{Field, Inputs, Kind, Preset, TEXT, flag, int, optional, required},
    state::AppState,
    time::Moment,
};

const NOTE: Kind = Kind::Text(1000);

const LIST: &[Field] = with_time_ranges!(
    [
        int("limit", 0, PAGE),
        int("offset", 0, 0),
        optional("run_type", Kind::List(&Kind::Choice(RUN_TYPES))),
        optional("state", Kind::List(&Kind::Choice(RUN_STATES))),
        optional("run_id_pattern", TEXT),
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
        optional("order_by", TEXT),
        int("page_offset", 0, 0),
        Field { name: "page_limit", kind: Kind::Int(0), is_required: false, default: Preset::Int(100) },
        optional("dag_ids", TEXT_LIST),
        optional("states", Kind::List(&Kind::Choice(RUN_STATES))),
    ],
    "run_after_gte" "run_after_gt" "run_after_lte" "run_after_lt",
    "logical_date_gte" "logical_date_gt" "logical_date_lte" "logical_date_lt",
    "start_date_gte" "start_date_gt" "start_date_lte" "start_date_lt",
    "end_date_gte" "end_date_gt" "end_date_lte" "end_date_lt",
);

const TRIGGER: &[Field] = &[
    optional("dag_run_id", TEXT),
    optional("data_interval_start", Kind::AwareTime),
    optional("data_interval_end", Kind::AwareTime),
    required("logical_date", Kind::AwareTime),
    optional("run_after", Kind::Time),
    optional("conf", Kind::Object),
    optional("note", TEXT),
    optional("partition_key", TEXT),
];

const PATCH: &[Field] =
    &[optional("state", Kind::Choice(&["queued", "success", "failed"])), optional("note", NOTE)];
const MASK: &[Field] = &[optional("update_mask", TEXT_LIST)];

const CLEAR: &[Field] = &[
    flag("dry_run", true),
    flag("only_failed", false),
    flag("only_new", false),
    optional("run_on_latest_version", Kind::Flag),
    optional("note", NOTE),
];

const WAIT: &[Field] = &[required("interval", TEXT), optional("result", TEXT_LIST)];

pub(super) fn endpoints() -> Vec<Endpoint> {
    let tag = "DagRun";
    let runs = "/api/v2/dags/{dag_id}/dagRuns";
    let run = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}";
    vec![
        Endpoint::new(Method::GET, runs, "get_dag_runs", list)
            .about(tag, "Lists the runs of a DAG, or with ~ of all DAGs.")
            .query(LIST)
            .answers::<DagRunCollectionResponse>(),
        Endpoint::new(Method::POST, runs, "trigger_dag_run", trigger)
            .about(tag, "Makes a run.")
            .body(TRIGGER)
            .answers::<DagRunResponse>(),
        Endpoint::new(Method::POST, "/api/v2/dags/{dag_id}/dagRuns/list", "get_list_dag_runs_batch", batch)
            .about(tag, "Lists the runs of several DAGs.")
            .body(BATCH)
            .answers::<DagRunCollectionResponse>(),
        Endpoint::new(Method::GET, run, "get_dag_run", get)
            .about(tag, "Gives a run.")
            .answers::<DagRunResponse>(),
        Endpoint::new(Method::PATCH, run, "patch_dag_run", patch)
            .about(tag, "Ends a run, puts it back into the queue, or sets its note.")
            .query(MASK)
            .body(PATCH)
            .answers::<DagRunResponse>(),
        Endpoint::new(Method::DELETE, run, "delete_dag_run", delete).about(tag, "Removes a run.").status(204),
        Endpoint::new(
            Method::POST,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/clear",
            "clear_dag_run",
            clear,
        )
        .about(tag, "Runs a run again, or says what of it would run again.")
        .body(CLEAR)
        .answers::<DagRunResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/wait",
            "wait_dag_run_until_finished",
            wait,
        )
        .about(tag, "Says a run's state, line by line, until it has ended.")
        .query(WAIT),
    ]
}

/// `airflow/api_fastapi/core_api/datamodels/dag_run.py: DAGRunResponse`.
#[derive(Serialize, ToSchema)]
#[schema(as = DAGRunResponse)]
pub(super) struct DagRunResponse {
    dag_run_id: String,
    dag_id: String,
    logical_date: Option<Moment>,
    queued_at: Option<Moment>,
    start_date: Option<Moment>,
    end_date: Option<Moment>,
    duration: Option<f64>,
    data_interval_start: Option<Moment>,
    data_interval_end: Option<Moment>,
    run_after: Moment,
    last_scheduling_decision: Option<Moment>,
    run_type: &'static str,
    state: &'static str,
    triggered_by: Option<&'static str>,
    triggering_user_name: Option<String>,
    conf: Option<Value>,
    note: Option<String>,
    dag_versions: Vec<DagVersionResponse>,
    bundle_version: Option<String>,
    dag_display_name: String,
    partition_key: Option<String>,
    partition_date: Option<Moment>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DAGRunCollectionResponse)]
struct DagRunCollectionResponse {
    dag_runs: Vec<DagRunResponse>,
    total_entries: u64,
    total_entries_limit: Option<u64>,
    next_cursor: Option<String>,
    previous_cursor: Option<String>,
}

/// Seconds between two moments.
pub(super) fn seconds(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<f64> {
    let span = to? - from?;
    #[expect(clippy::cast_precision_loss, reason = "Durations are far below 2^52 microseconds.")]
    Some(span.num_microseconds()? as f64 / 1e6)
}

async fn response(
    state: &AppState,
    tx: &mut dyn Tx,
    names: &mut DisplayNames,
    run: &DagRun,
) -> Result<DagRunResponse, ApiError> {
    let name = names.get(tx, &run.dag_id).await?;
    let version = state.graph(tx, run.dag_version_id).await?;
    Ok(DagRunResponse {
        dag_run_id: run.run_id.to_string(),
        dag_id: run.dag_id.to_string(),
        logical_date: run.logical_date.map(Moment),
        queued_at: Some(run.queued_at.into()),
        start_date: run.start_date.map(Moment),
        end_date: run.end_date.map(Moment),
        duration: seconds(run.start_date, run.end_date),
        data_interval_start: run.data_interval_start.map(Moment),
        data_interval_end: run.data_interval_end.map(Moment),
        run_after: run.run_after.into(),
        last_scheduling_decision: run.last_scheduling_decision.map(Moment),
        run_type: run.run_type.as_str(),
        state: run.state.as_str(),
        triggered_by: run.triggered_by.map(TriggeredBy::as_str),
        triggering_user_name: run.triggering_user.clone(),
        // A run that was made without parameters has an empty object in Airflow.
        conf: Some(if run.conf.is_null() { json!({}) } else { run.conf.clone() }),
        note: run.note.clone(),
        dag_versions: version.iter().map(|graph| DagVersionResponse::of(&graph.version, &name)).collect(),
        bundle_version: run.bundle_version.as_ref().map(ToString::to_string),
        dag_display_name: name,
        partition_key: run.partition_key.clone(),
        partition_date: None,
    })
}

pub(super) fn run_not_found(dag_id: &DagId, run_id: &RunId) -> ApiError {
    ApiError::not_found(format!("The DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found"))
}

pub(super) async fn run_or_404(tx: &mut dyn Tx, dag_id: &DagId, run_id: &RunId) -> Result<DagRun, ApiError> {
    tx.dag_run(dag_id, run_id).await?.ok_or_else(|| run_not_found(dag_id, run_id))
}

async fn shown(state: &AppState, run: &DagRun) -> Result<Json<DagRunResponse>, ApiError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    Ok(Json(response(state, &mut *tx, &mut DisplayNames::default(), run).await?))
}

fn column(name: &str) -> Option<DagRunSort> {
    Some(match name {
        "id" => DagRunSort::QueuedAt,
        "dag_id" => DagRunSort::DagId,
        "run_id" | "dag_run_id" => DagRunSort::RunId,
        "logical_date" => DagRunSort::LogicalDate,
        "run_after" => DagRunSort::RunAfter,
        "start_date" => DagRunSort::StartDate,
        "end_date" => DagRunSort::EndDate,
        "state" => DagRunSort::State,
        _ => return None,
    })
}

fn times(inputs: &Inputs, filter: DagRunFilter) -> DagRunFilter {
    DagRunFilter {
        logical_date: range(inputs, "logical_date"),
        run_after: range(inputs, "run_after"),
        start_date: range(inputs, "start_date"),
        end_date: range(inputs, "end_date"),
        updated_at: range(inputs, "updated_at"),
        ..filter
    }
}

async fn collection(
    state: &AppState,
    tx: &mut dyn Tx,
    filter: &DagRunFilter,
    page: &Page<DagRunSort>,
) -> Result<Json<DagRunCollectionResponse>, ApiError> {
    let found = tx.dag_runs(filter, page).await?;
    let mut names = DisplayNames::default();
    let mut dag_runs = Vec::with_capacity(found.items.len());
    for run in &found.items {
        dag_runs.push(response(state, tx, &mut names, run).await?);
    }
    Ok(Json(DagRunCollectionResponse {
        dag_runs,
        total_entries: found.total,
        total_entries_limit: None,
        next_cursor: None,
        previous_cursor: None,
    }))
}

fn by_id() -> Vec<(DagRunSort, Direction)> {
    vec![(DagRunSort::QueuedAt, Direction::Ascending)]
}

async fn list(call: Call) -> Result<Json<DagRunCollectionResponse>, ApiError> {
    let query = &call.query;
    let page = page(window(query, "limit", "offset"), query.texts("order_by"), by_id(), column)?;
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let dag_ids = match call.one_dag() {
        Some(dag_id) => {
            dag_or_404(&mut *tx, &dag_id)
                .await
                .map_err(|_| ApiError::not_found(format!("The Dag with ID: `{dag_id}` was not found")))?;
            vec![dag_id]
        }
        None => Vec::new(),
    };
    let filter = times(
        query,
        DagRunFilter {
            dag_ids,
            run_id_contains: pattern(query, "run_id_pattern")?,
            states: parsed(query, "state"),
            run_types: parsed(query, "run_type"),
            ..DagRunFilter::default()
        },
    );
    collection(&call.state, &mut *tx, &filter, &page).await
}

async fn batch(call: Call) -> Result<Json<DagRunCollectionResponse>, ApiError> {
    if call.one_dag().is_some() {
        return Err(ApiError::Invalid(vec![json!({
            "type": "literal_error", "loc": ["path", "dag_id"], "msg": "Input should be '~'",
            "input": call.segment("dag_id"),
        })]));
    }
    let body = &call.body;
    let page =
        page(window(body, "page_limit", "page_offset"), body.text("order_by").into_iter(), by_id(), column)?;
    let filter = times(
        body,
        DagRunFilter {
            dag_ids: body.texts("dag_ids").map(DagId::from).collect(),
            states: parsed(body, "states"),
            ..DagRunFilter::default()
        },
    );
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    collection(&call.state, &mut *tx, &filter, &page).await
}

async fn get(call: Call) -> Result<Json<DagRunResponse>, ApiError> {
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let run = run_or_404(&mut *tx, &call.dag_id(), &call.run_id()).await?;
    Ok(Json(response(&call.state, &mut *tx, &mut DisplayNames::default(), &run).await?))
}

async fn trigger(call: Call) -> Result<Json<DagRunResponse>, ApiError> {
    let body = &call.body;
    let data_interval = match (body.time("data_interval_start"), body.time("data_interval_end")) {
        (None, None) => None,
        (Some(start), Some(end)) => Some((start, end)),
        _ => {
            return Err(ApiError::invalid_body(
                "Either both data_interval_start and data_interval_end must be provided or both must be None",
                &call.raw_body,
            ));
        }
    };
    let logical_date = body.time("logical_date");
    let triggered_by =
        if call.headers.contains_key(header::REFERER) { TriggeredBy::Ui } else { TriggeredBy::RestApi };
    let request = TriggerRequest {
        run_id: body.text("dag_run_id").filter(|id| !id.is_empty()).map(RunId::from),
        run_type: DagRunType::Manual,
        logical_date,
        // Airflow leaves an interval without a logical date aside.
        data_interval: logical_date.and(data_interval),
        run_after: body.time("run_after"),
        conf: body.value("conf").cloned().unwrap_or_else(|| json!({})),
        note: body.owned("note"),
        partition_key: body.owned("partition_key"),
        triggering_user: Some(call.who.user.clone()),
        ..TriggerRequest::new(call.dag_id(), triggered_by)
    };
    let run = gust_operations::trigger_dag_run(call.state.ports(), request).await?;
    shown(&call.state, &run).await
}

async fn patch(call: Call) -> Result<Json<DagRunResponse>, ApiError> {
    let mask: Vec<&str> = call.query.texts("update_mask").collect();
    let is_wanted = |name: &str| call.body.is_given(name) && (mask.is_empty() || mask.contains(&name));
    let (dag_id, run_id) = (call.dag_id(), call.run_id());
    let mut run = {
        let mut tx = call.state.metastore.begin(TxMode::Read).await?;
        run_or_404(&mut *tx, &dag_id, &run_id).await?
    };
    let ports = call.state.ports();
    if is_wanted("note") {
        let note = call.body.owned("note");
        run = gust_operations::set_dag_run_note(ports, dag_id.clone(), run_id.clone(), note).await?;
    }
    if is_wanted("state")
        && let Some(state) = call.body.text("state").and_then(|state| state.parse().ok())
    {
        run = gust_operations::set_dag_run_state(ports, dag_id, run_id, state).await?;
    }
    shown(&call.state, &run).await
}

async fn delete(call: Call) -> Result<StatusCode, ApiError> {
    gust_operations::delete_dag_run(call.state.ports(), call.dag_id(), call.run_id()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn clear(call: Call) -> Result<Response, ApiError> {
    let body = &call.body;
    if body.is_set("only_new") {
        return Err(ApiError::bad_request(
            "only_new is not supported: clear the run with run_on_latest_version to take in new tasks",
        ));
    }
    let (dag_id, run_id) = (call.dag_id(), call.run_id());
    if body.is_set("dry_run") {
        let request = ClearRequest {
            only_failed: body.is_set("only_failed"),
            dry_run: true,
            ..ClearRequest::of_run(dag_id, run_id)
        };
        let rows = gust_operations::clear_task_instances(call.state.ports(), request).await?;
        return Ok(task_instances::collection_of(&call.state, &rows).await?.into_response());
    }
    let request = ClearRunRequest {
        dag_id,
        run_id,
        only_failed: body.is_set("only_failed"),
        run_on_latest_version: body.flag("run_on_latest_version"),
        note: body.owned("note"),
    };
    let run = gust_operations::clear_dag_run(call.state.ports(), request).await?;
    Ok(shown(&call.state, &run).await?.into_response())
}

/// One line of [`wait`], and whether it is the last.
async fn wait_line(
    state: &AppState,
    dag_id: &DagId,
    run_id: &RunId,
    tasks: &[String],
) -> Result<(String, bool), ApiError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let run = run_or_404(&mut *tx, dag_id, run_id).await?;
    let mut line = json!({"state": run.state.as_str()});
    if run.state.is_finished() {
        let filter = XComFilter {
            dag_id: Some(dag_id.clone()),
            run_id: Some(run_id.clone()),
            key: Some("return_value".into()),
            ..XComFilter::default()
        };
        let mut results: Map<String, Value> = Map::new();
        for xcom in tx.xcoms(&filter, u32::MAX, 0).await?.items {
            let task_id = xcom.key.task_id.to_string();
            if !(if tasks.is_empty() { xcom.is_dag_result } else { tasks.contains(&task_id) }) {
                continue;
            }
            if xcom.key.map_index.is_mapped() {
                if let Value::Array(values) = results.entry(task_id).or_insert_with(|| json!([])) {
                    values.push(xcom.value);
                }
            } else {
                results.insert(task_id, xcom.value);
            }
        }
        if !results.is_empty() {
            line["results"] = Value::Object(results);
        }
    }
    Ok((format!("{line}\n"), run.state.is_finished()))
}

async fn wait(call: Call) -> Result<Response, ApiError> {
    let (dag_id, run_id) = (call.dag_id(), call.run_id());
    let interval = call
        .query
        .text("interval")
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| {
            ApiError::Invalid(vec![json!({
                "type": "greater_than", "loc": ["query", "interval"], "msg": "Input should be greater than 0",
                "input": call.query.text("interval"),
            })])
        })?;
    let tasks: Vec<String> = call.query.texts("result").map(str::to_owned).collect();
    let first = wait_line(&call.state, &dag_id, &run_id, &tasks).await?;
    let state = call.state.clone();
    let rest = futures::stream::unfold(
        (state, dag_id, run_id, tasks, first.1),
        move |(state, dag_id, run_id, tasks, is_over)| async move {
            if is_over {
                return None;
            }
            state.clock.sleep(interval).await;
            let line = wait_line(&state, &dag_id, &run_id, &tasks).await;
            // A run that was removed, or a metastore that fails, ends the stream in an error that the client sees.
            let is_over = line.as_ref().map_or(true, |(_, is_over)| *is_over);
            Some((line.map(|(line, _)| line), (state, dag_id, run_id, tasks, is_over)))
        },
    );
    let lines = futures::stream::iter([Ok(first.0)]).chain(rest);
    // Airflow names no content type here, and its Python client refuses one that is not JSON.
    Ok(Body::from_stream(lines).into_response())
}
