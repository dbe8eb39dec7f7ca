//! DAGs.

use std::collections::BTreeMap;

use axum::{Json, http::Method};
use gust_model::{
    DagId, DagRunState,
    record::{DagRecord, DagVersion},
};
use gust_operations::dag_params;
use gust_ports::{
    Tx,
    metastore::{DagFilter, DagSort, Direction, TxMode},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::lists::{PAGE, RUN_STATES, TEXT_LIST, page, pattern, window};
use crate::{
    call::Call,
    endpoint::Endpoint,
    error::ApiError,
    inputs::{Field, Kind, TEXT, flag, int, optional, required},
    state::{AppState, Graph},
    time::Moment,
};

const LIST: &[Field] = &[
    int("limit", 0, PAGE),
    int("offset", 0, 0),
    optional("tags", TEXT_LIST),
    optional("tags_match_mode", Kind::Choice(&["any", "all"])),
    optional("owners", TEXT_LIST),
    optional("dag_id_pattern", TEXT),
    optional("dag_display_name_pattern", TEXT),
    flag("exclude_stale", true),
    optional("paused", Kind::Flag),
    optional("has_import_errors", Kind::Flag),
    optional("last_dag_run_state", Kind::Choice(RUN_STATES)),
    optional("bundle_name", TEXT),
    optional("order_by", TEXT_LIST),
];
const PATCH: &[Field] = &[required("is_paused", Kind::Flag)];
const MASK: &[Field] = &[optional("update_mask", TEXT_LIST)];

pub(super) fn endpoints() -> Vec<Endpoint> {
    let tag = "DAG";
    vec![
        Endpoint::new(Method::GET, "/api/v2/dags", "get_dags", list)
            .about(tag, "Lists DAGs.")
            .query(LIST)
            .answers::<DagCollectionResponse>(),
        Endpoint::new(Method::GET, "/api/v2/dags/{dag_id}", "get_dag", get)
            .about(tag, "Gives a DAG.")
            .answers::<DagResponse>(),
        Endpoint::new(Method::GET, "/api/v2/dags/{dag_id}/details", "get_dag_details", details)
            .about(tag, "Gives a DAG with what its file says of it.")
            .answers::<DagDetailsResponse>(),
        Endpoint::new(Method::PATCH, "/api/v2/dags/{dag_id}", "patch_dag", patch)
            .about(tag, "Pauses or unpauses a DAG.")
            .query(MASK)
            .body(PATCH)
            .answers::<DagResponse>(),
        Endpoint::new(Method::DELETE, "/api/v2/dags/{dag_id}", "delete_dag", delete)
            .about(tag, "Removes a DAG with its runs."),
    ]
}

/// `airflow/api_fastapi/core_api/datamodels/dag_tags.py: DagTagResponse`.
#[derive(Serialize, ToSchema)]
struct DagTagResponse {
    name: String,
    dag_id: String,
    dag_display_name: String,
}

/// `airflow/api_fastapi/core_api/datamodels/dags.py: DAGResponse`.
#[derive(Serialize, ToSchema)]
#[schema(as = DAGResponse)]
struct DagResponse {
    dag_id: String,
    dag_display_name: String,
    is_paused: bool,
    is_stale: bool,
    last_parsed_time: Option<Moment>,
    last_parse_duration: Option<f64>,
    last_expired: Option<Moment>,
    bundle_name: Option<String>,
    bundle_version: Option<String>,
    relative_fileloc: Option<String>,
    fileloc: String,
    description: Option<String>,
    timetable_summary: Option<String>,
    timetable_description: Option<String>,
    timetable_partitioned: bool,
    timetable_periodic: bool,
    tags: Vec<DagTagResponse>,
    max_active_tasks: i32,
    max_active_runs: Option<i32>,
    max_consecutive_failed_dag_runs: i32,
    has_task_concurrency_limits: bool,
    has_import_errors: bool,
    next_dagrun_logical_date: Option<Moment>,
    next_dagrun_data_interval_start: Option<Moment>,
    next_dagrun_data_interval_end: Option<Moment>,
    next_dagrun_run_after: Option<Moment>,
    allowed_run_types: Option<Vec<String>>,
    owners: Vec<String>,
    is_backfillable: bool,
    file_token: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DAGCollectionResponse)]
struct DagCollectionResponse {
    dags: Vec<DagResponse>,
    total_entries: u64,
}

/// `airflow/api_fastapi/core_api/datamodels/dag_versions.py: DagVersionResponse`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct DagVersionResponse {
    id: String,
    version_number: i32,
    dag_id: String,
    bundle_name: Option<String>,
    bundle_version: Option<String>,
    created_at: Moment,
    dag_display_name: String,
    bundle_url: Option<String>,
}

impl DagVersionResponse {
    pub(super) fn of(version: &DagVersion, display_name: &str) -> Self {
        Self {
            id: version.id.to_string(),
            version_number: version.version_number,
            dag_id: version.dag_id.to_string(),
            bundle_name: Some(version.bundle_name.to_string()),
            bundle_version: version.bundle_version.as_ref().map(ToString::to_string),
            created_at: version.created_at.into(),
            dag_display_name: display_name.to_owned(),
            bundle_url: None,
        }
    }
}

/// `airflow/api_fastapi/core_api/datamodels/dags.py: DAGDetailsResponse`.
#[derive(Serialize, ToSchema)]
#[schema(as = DAGDetailsResponse)]
struct DagDetailsResponse {
    #[serde(flatten)]
    dag: DagResponse,
    catchup: bool,
    /// ISO 8601, as pydantic writes a timedelta.
    dag_run_timeout: Option<String>,
    asset_expression: Option<Value>,
    doc_md: Option<String>,
    start_date: Option<Moment>,
    end_date: Option<Moment>,
    is_paused_upon_creation: Option<bool>,
    params: Option<Map<String, Value>>,
    render_template_as_native_obj: bool,
    template_search_path: Option<Vec<String>>,
    timezone: Option<String>,
    last_parsed: Option<Moment>,
    default_args: Option<Value>,
    rerun_with_latest_version: Option<bool>,
    owner_links: Option<Value>,
    is_favorite: bool,
    active_runs_count: u64,
    concurrency: i32,
    latest_dag_version: Option<DagVersionResponse>,
}

/// The name of a DAG as pages show it.
pub(super) fn display_name(record: &DagRecord) -> String {
    record.dag_display_name.clone().unwrap_or_else(|| record.dag_id.to_string())
}

/// The names of DAGs as pages show them, each asked for once.
#[derive(Default)]
pub(super) struct DisplayNames(BTreeMap<DagId, String>);

impl DisplayNames {
    pub(super) async fn get(&mut self, tx: &mut dyn Tx, dag_id: &DagId) -> Result<String, ApiError> {
        if let Some(name) = self.0.get(dag_id) {
            return Ok(name.clone());
        }
        let name = tx.dag(dag_id).await?.map_or_else(|| dag_id.to_string(), |record| display_name(&record));
        self.0.insert(dag_id.clone(), name.clone());
        Ok(name)
    }
}

/// A DAG's row, or Airflow's 404.
pub(super) async fn dag_or_404(tx: &mut dyn Tx, dag_id: &DagId) -> Result<DagRecord, ApiError> {
    tx.dag(dag_id).await?.ok_or_else(|| ApiError::not_found(format!("Dag with id: {dag_id} was not found")))
}

/// A DAG's row with its newest graph, or Airflow's 404.
pub(super) async fn graph_or_404(
    state: &AppState,
    tx: &mut dyn Tx,
    dag_id: &DagId,
) -> Result<(DagRecord, Graph), ApiError> {
    let record = tx.dag(dag_id).await?.ok_or_else(|| dag_not_found(dag_id))?;
    let graph = state.graph(tx, record.current_version_id).await?.ok_or_else(|| dag_not_found(dag_id))?;
    Ok((record, graph))
}

pub(super) fn dag_not_found(dag_id: &DagId) -> ApiError {
    ApiError::not_found(format!("The Dag with ID: `{dag_id}` was not found"))
}

fn response(record: &DagRecord, graph: Option<&Graph>) -> DagResponse {
    let next = record.next_run.as_ref();
    let name = display_name(record);
    let is_periodic =
        graph.and_then(|graph| graph.timetable.as_ref()).is_some_and(gust_timetable::Timetable::is_periodic);
    let allowed = graph.and_then(|graph| graph.dag.allowed_run_types.as_ref());
    DagResponse {
        dag_id: record.dag_id.to_string(),
        is_paused: record.is_paused,
        is_stale: record.is_stale,
        last_parsed_time: Some(record.last_parsed_at.into()),
        last_parse_duration: Some(record.last_parse_duration),
        last_expired: None,
        bundle_name: Some(record.bundle_name.to_string()),
        bundle_version: record.bundle_version.as_ref().map(ToString::to_string),
        relative_fileloc: Some(record.relative_fileloc.clone()),
        fileloc: graph.map_or_else(|| record.relative_fileloc.clone(), |graph| graph.dag.fileloc.clone()),
        description: record.description.clone(),
        timetable_summary: record.timetable_summary.clone().filter(|summary| summary != "None"),
        timetable_description: record.timetable_description.clone(),
        timetable_partitioned: graph
            .and_then(|graph| graph.timetable.as_ref())
            .is_some_and(gust_timetable::Timetable::is_partitioned),
        timetable_periodic: is_periodic,
        tags: record
            .tags
            .iter()
            .map(|tag| DagTagResponse {
                name: tag.clone(),
                dag_id: record.dag_id.to_string(),
                dag_display_name: name.clone(),
            })
            .collect(),
        dag_display_name: name,
        max_active_tasks: record.max_active_tasks,
        max_active_runs: Some(record.max_active_runs),
        max_consecutive_failed_dag_runs: record.max_consecutive_failed_dag_runs,
        has_task_concurrency_limits: graph.is_some_and(|graph| graph.dag.has_task_concurrency_limits()),
        has_import_errors: record.has_import_errors,
        next_dagrun_logical_date: next.and_then(|next| next.logical_date).map(Moment),
        next_dagrun_data_interval_start: next.and_then(|next| next.data_interval_start).map(Moment),
        next_dagrun_data_interval_end: next.and_then(|next| next.data_interval_end).map(Moment),
        next_dagrun_run_after: next.map(|next| next.run_after.into()),
        is_backfillable: is_periodic && allowed.is_none_or(|allowed| allowed.contains("backfill")),
        allowed_run_types: allowed.map(|allowed| allowed.iter().cloned().collect()),
        owners: record.owners.split(',').map(|owner| owner.trim().to_owned()).collect(),
        // Airflow signs this token; here it only names the file, and whoever uses it must be allowed to.
        file_token: json!({"bundle_name": record.bundle_name, "relative_fileloc": record.relative_fileloc})
            .to_string(),
    }
}

fn list_filter(call: &Call) -> Result<DagFilter, ApiError> {
    let query = &call.query;
    let tags: Vec<String> = query.texts("tags").map(str::to_owned).collect();
    let wants_all = query.text("tags_match_mode") == Some("all");
    let by_id = pattern(query, "dag_id_pattern")?;
    let by_name = pattern(query, "dag_display_name_pattern")?;
    if by_id.is_some() && by_name.is_some() && by_id != by_name {
        return Err(ApiError::bad_request(
            "give one of dag_id_pattern and dag_display_name_pattern; both are looked for in either name",
        ));
    }
    let (tags_all, tags_any) = if wants_all { (tags, Vec::new()) } else { (Vec::new(), tags) };
    Ok(DagFilter {
        name_contains: by_id.or(by_name),
        tags_any,
        tags_all,
        owners_any: query.texts("owners").map(str::to_owned).collect(),
        is_paused: query.flag("paused"),
        is_stale: query.is_set("exclude_stale").then_some(false),
        has_import_errors: query.flag("has_import_errors"),
        bundle_name: query.text("bundle_name").map(Into::into),
        last_run_state: query.text("last_dag_run_state").and_then(|state| state.parse().ok()),
        ..DagFilter::default()
    })
}

async fn list(call: Call) -> Result<Json<DagCollectionResponse>, ApiError> {
    let page = page(
        window(&call.query, "limit", "offset"),
        call.query.texts("order_by"),
        vec![(DagSort::DagId, Direction::Ascending)],
        |name| {
            Some(match name {
                "dag_id" => DagSort::DagId,
                "dag_display_name" => DagSort::DisplayName,
                "is_paused" => DagSort::IsPaused,
                "next_dagrun" => DagSort::NextRunAfter,
                "last_run_state" | "state" => DagSort::LastRunState,
                "last_run_start_date" | "start_date" => DagSort::LastRunStartDate,
                _ => return None,
            })
        },
    )?;
    let filter = list_filter(&call)?;
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let found = tx.dags(&filter, &page).await?;
    let mut dags = Vec::with_capacity(found.items.len());
    for record in &found.items {
        let graph = call.state.graph(&mut *tx, record.current_version_id).await?;
        dags.push(response(record, graph.as_ref()));
    }
    Ok(Json(DagCollectionResponse { dags, total_entries: found.total }))
}

async fn one(state: &AppState, dag_id: &DagId) -> Result<Json<DagResponse>, ApiError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let record = tx.dag(dag_id).await?.ok_or_else(|| dag_not_found(dag_id))?;
    let graph = state.graph(&mut *tx, record.current_version_id).await?;
    Ok(Json(response(&record, graph.as_ref())))
}

async fn get(call: Call) -> Result<Json<DagResponse>, ApiError> {
    one(&call.state, &call.dag_id()).await
}

/// A time span as pydantic writes it (`PT1H30M`).
pub(super) fn iso_duration(span: chrono::TimeDelta) -> String {
    let seconds = span.num_seconds();
    let micros = (span - chrono::TimeDelta::seconds(seconds)).num_microseconds().unwrap_or(0).abs();
    let sign = if span < chrono::TimeDelta::zero() { "-" } else { "" };
    let seconds = seconds.unsigned_abs();
    let (days, hours, minutes, rest) =
        (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let part = |number: u64, unit: char| if number > 0 { format!("{number}{unit}") } else { String::new() };
    let fraction = if micros > 0 { format!(".{micros:06}") } else { String::new() };
    let is_short = days + hours + minutes == 0;
    let last = if rest > 0 || micros > 0 || is_short { format!("{rest}{fraction}S") } else { String::new() };
    let time = format!("{}{}{last}", part(hours, 'H'), part(minutes, 'M'));
    let mark = if time.is_empty() { "" } else { "T" };
    format!("{sign}P{}{mark}{time}", part(days, 'D'))
}

/// Parameters as Airflow's API shows them (`airflow/serialization/definitions/param.py: SerializedParam.dump`).
pub(super) fn params(dag: &gust_model::dag::Dag) -> Map<String, Value> {
    dag_params(dag)
        .into_iter()
        .map(|param| {
            let shown = json!({
                "value": param.default,
                "schema": param.schema,
                "description": param.description,
                "source": param.source,
            });
            (param.name, shown)
        })
        .collect()
}

async fn details(call: Call) -> Result<Json<DagDetailsResponse>, ApiError> {
    let dag_id = call.dag_id();
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let (record, graph) = graph_or_404(&call.state, &mut *tx, &dag_id).await?;
    let active = [DagRunState::Queued, DagRunState::Running];
    let active_runs_count = tx.count_dag_runs(&dag_id, &active, true).await?;
    let dag = &graph.dag;
    let attribute = |name: &str| dag.attributes.get(name).filter(|value| !value.is_null()).cloned();
    let timezone = match &dag.timezone {
        Value::String(name) => Some(name.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    };
    let shown = response(&record, Some(&graph));
    Ok(Json(DagDetailsResponse {
        catchup: dag.catchup,
        dag_run_timeout: dag.dagrun_timeout.map(iso_duration),
        asset_expression: Some(record.asset_expression.clone()).filter(|value| !value.is_null()),
        doc_md: dag.doc_md.clone(),
        start_date: dag.start_date.map(Moment),
        end_date: dag.end_date.map(Moment),
        is_paused_upon_creation: dag.is_paused_upon_creation,
        params: Some(params(dag)),
        render_template_as_native_obj: attribute("render_template_as_native_obj")
            .and_then(|value| value.as_bool())
            .unwrap_or(false),
        template_search_path: attribute("template_searchpath").and_then(|value| match value {
            Value::String(path) => Some(vec![path]),
            Value::Array(paths) => Some(paths.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            _ => None,
        }),
        timezone,
        last_parsed: Some(record.last_parsed_at.into()),
        default_args: attribute("default_args"),
        rerun_with_latest_version: dag.rerun_with_latest_version,
        owner_links: attribute("owner_links"),
        is_favorite: false,
        active_runs_count,
        concurrency: record.max_active_tasks,
        latest_dag_version: Some(DagVersionResponse::of(&graph.version, &shown.dag_display_name)),
        dag: shown,
    }))
}

async fn patch(call: Call) -> Result<Json<DagResponse>, ApiError> {
    let mask: Vec<&str> = call.query.texts("update_mask").collect();
    if !mask.is_empty() && mask != ["is_paused"] {
        return Err(ApiError::bad_request("Only `is_paused` field can be updated through the REST API"));
    }
    let dag_id = call.dag_id();
    let is_paused = call
        .body
        .flag("is_paused")
        .ok_or_else(|| ApiError::invalid_body("is_paused must be true or false", &call.raw_body))?;
    gust_operations::set_dag_paused(call.state.ports(), dag_id.clone(), is_paused).await.map_err(
        |error| match error {
            gust_operations::OperationError::DagNotFound(dag_id) => {
                ApiError::not_found(format!("Dag with id: {dag_id} was not found"))
            }
            other => other.into(),
        },
    )?;
    one(&call.state, &dag_id).await
}

async fn delete(call: Call) -> Result<Json<Value>, ApiError> {
    let dag_id = call.dag_id();
    gust_operations::delete_dag(call.state.ports(), dag_id.clone()).await.map_err(|error| match error {
        gust_operations::OperationError::DagNotFound(_) => {
            ApiError::not_found(format!("Dag with id: {dag_id} was not found"))
        }
        other => other.into(),
    })?;
    Ok(Json(Value::Null))
}
