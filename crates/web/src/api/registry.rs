//! What is known of DAG files: import errors, versions, tags, tasks, and how many runs are in which state.

use std::collections::BTreeSet;

use axum::{Json, http::Method};
use gust_model::{
    DagRunState,
    dag::{Dag, TaskIndex},
    record::ImportError,
};
use gust_ports::{
    Tx,
    metastore::{DagFilter, Page, TxMode},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    dags::{DagVersionResponse, display_name, graph_or_404},
    lists::{PAGE, TEXT_LIST, bad_order, pattern, window},
};
use crate::{
    call::Call,
    endpoint::Endpoint,
    error::ApiError,
    inputs::{Field, Kind, TEXT, int, optional},
    time::Moment,
};

/// How many rows are read at a time where all are looked through.
const BATCH: u32 = 500;

const ERRORS: &[Field] = &[
    int("limit", 0, PAGE),
    int("offset", 0, 0),
    optional("order_by", TEXT_LIST),
    optional("filename", TEXT),
    optional("filename_pattern", TEXT),
    optional("bundle_name", TEXT),
];
const VERSIONS: &[Field] = &[
    int("limit", 0, PAGE),
    int("offset", 0, 0),
    optional("version_number", Kind::Int(0)),
    optional("order_by", TEXT_LIST),
];
const TAGS: &[Field] = &[
    int("limit", 0, PAGE),
    int("offset", 0, 0),
    optional("order_by", TEXT_LIST),
    optional("tag_name_pattern", TEXT),
];
const TASKS: &[Field] = &[optional("order_by", TEXT)];
const STATS: &[Field] = &[optional("dag_ids", TEXT_LIST)];

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::GET, "/api/v2/importErrors", "get_import_errors", import_errors)
            .about("Import Error", "Lists what is wrong with DAG files.")
            .query(ERRORS)
            .answers::<ImportErrorCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/importErrors/{import_error_id}",
            "get_import_error",
            import_error,
        )
        .about("Import Error", "Gives one thing that is wrong with a DAG file.")
        .answers::<ImportErrorResponse>(),
        Endpoint::new(Method::GET, "/api/v2/dags/{dag_id}/dagVersions", "get_dag_versions", versions)
            .about("DagVersion", "Lists the versions of a DAG.")
            .query(VERSIONS)
            .answers::<DagVersionCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagVersions/{version_number}",
            "get_dag_version",
            version,
        )
        .about("DagVersion", "Gives a version of a DAG.")
        .answers::<DagVersionResponse>(),
        Endpoint::new(Method::GET, "/api/v2/dagTags", "get_dag_tags", tags)
            .about("DAG", "Lists the tags that DAGs have.")
            .query(TAGS)
            .answers::<DagTagCollectionResponse>(),
        Endpoint::new(Method::GET, "/api/v2/dagStats", "get_dag_stats", stats)
            .about("DagStats", "Counts runs by state.")
            .query(STATS)
            .answers::<DagStatsCollectionResponse>(),
        Endpoint::new(Method::GET, "/api/v2/dags/{dag_id}/tasks", "get_tasks", tasks)
            .about("Task", "Lists the tasks of a DAG.")
            .query(TASKS)
            .answers::<TaskCollectionResponse>(),
        Endpoint::new(Method::GET, "/api/v2/dags/{dag_id}/tasks/{task_id}", "get_task", task)
            .about("Task", "Gives a task of a DAG.")
            .answers::<TaskResponse>(),
    ]
}

/// `airflow/api_fastapi/core_api/datamodels/import_error.py: ImportErrorResponse`.
#[derive(Serialize, ToSchema)]
struct ImportErrorResponse {
    import_error_id: i64,
    timestamp: Moment,
    filename: String,
    bundle_name: Option<String>,
    stack_trace: String,
}

#[derive(Serialize, ToSchema)]
struct ImportErrorCollectionResponse {
    import_errors: Vec<ImportErrorResponse>,
    total_entries: usize,
}

impl From<&ImportError> for ImportErrorResponse {
    fn from(error: &ImportError) -> Self {
        Self {
            import_error_id: error.id,
            timestamp: error.timestamp.into(),
            filename: error.filename.clone(),
            bundle_name: Some(error.bundle_name.to_string()),
            stack_trace: error.stack_trace.clone(),
        }
    }
}

async fn all_import_errors(tx: &mut dyn Tx) -> Result<Vec<ImportError>, ApiError> {
    let mut errors = Vec::new();
    loop {
        let offset = u32::try_from(errors.len()).unwrap_or(u32::MAX);
        let page = tx.import_errors(BATCH, offset).await?;
        let is_last = page.items.len() < BATCH as usize;
        errors.extend(page.items);
        if is_last {
            return Ok(errors);
        }
    }
}

async fn import_errors(call: Call) -> Result<Json<ImportErrorCollectionResponse>, ApiError> {
    let query = &call.query;
    let (limit, offset) = window(query, "limit", "offset");
    let contains = pattern(query, "filename_pattern")?.map(|text| text.to_lowercase());
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let mut errors = all_import_errors(&mut *tx).await?;
    errors.retain(|error| {
        query.text("filename").is_none_or(|name| error.filename == name)
            && query.text("bundle_name").is_none_or(|name| error.bundle_name == *name)
            && contains.as_ref().is_none_or(|text| error.filename.to_lowercase().contains(text.as_str()))
    });
    errors.sort_by_key(|error| error.id);
    if let Some(order) = query.texts("order_by").next() {
        match order.trim_start_matches('-') {
            "id" | "import_error_id" => {}
            "timestamp" => errors.sort_by_key(|error| error.timestamp),
            "filename" => errors.sort_by(|a, b| a.filename.cmp(&b.filename)),
            "bundle_name" => errors.sort_by(|a, b| a.bundle_name.cmp(&b.bundle_name)),
            "stacktrace" | "stack_trace" => errors.sort_by(|a, b| a.stack_trace.cmp(&b.stack_trace)),
            other => return Err(bad_order(other)),
        }
        if order.starts_with('-') {
            errors.reverse();
        }
    }
    let total_entries = errors.len();
    let shown = errors.iter().skip(offset as usize).take(limit as usize).map(Into::into).collect();
    Ok(Json(ImportErrorCollectionResponse { import_errors: shown, total_entries }))
}

async fn import_error(call: Call) -> Result<Json<ImportErrorResponse>, ApiError> {
    let id: i64 = call.number("import_error_id")?;
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let errors = all_import_errors(&mut *tx).await?;
    let found = errors.iter().find(|error| error.id == id).ok_or_else(|| {
        ApiError::not_found(format!("The ImportError with import_error_id: `{id}` was not found"))
    })?;
    Ok(Json(found.into()))
}

#[derive(Serialize, ToSchema)]
#[schema(as = DAGVersionCollectionResponse)]
struct DagVersionCollectionResponse {
    dag_versions: Vec<DagVersionResponse>,
    total_entries: usize,
}

async fn versions(call: Call) -> Result<Json<DagVersionCollectionResponse>, ApiError> {
    let query = &call.query;
    let dag_id = call.one_dag().ok_or_else(|| {
        ApiError::bad_request("name a DAG: the versions of all DAGs at once are not listed")
    })?;
    let (limit, offset) = window(query, "limit", "offset");
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let (record, _) = graph_or_404(&call.state, &mut *tx, &dag_id).await?;
    let mut found = tx.dag_versions(&dag_id).await?;
    found.sort_by_key(|version| version.version_number);
    if let Some(number) = query.int("version_number") {
        found.retain(|version| i64::from(version.version_number) == number);
    }
    if let Some(order) = query.texts("order_by").next() {
        if !matches!(order.trim_start_matches('-'), "id" | "version_number") {
            return Err(bad_order(order.trim_start_matches('-')));
        }
        if order.starts_with('-') {
            found.reverse();
        }
    }
    let name = display_name(&record);
    let total_entries = found.len();
    let dag_versions = found
        .iter()
        .skip(offset as usize)
        .take(limit as usize)
        .map(|version| DagVersionResponse::of(version, &name))
        .collect();
    Ok(Json(DagVersionCollectionResponse { dag_versions, total_entries }))
}

async fn version(call: Call) -> Result<Json<DagVersionResponse>, ApiError> {
    let number: i32 = call.number("version_number")?;
    let dag_id = call.dag_id();
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let record = tx.dag(&dag_id).await?;
    let found = tx.dag_versions(&dag_id).await?.into_iter().find(|version| version.version_number == number);
    let (Some(record), Some(found)) = (record, found) else {
        return Err(ApiError::not_found(format!(
            "The DagVersion with dag_id: `{dag_id}` and version_number: `{number}` was not found"
        )));
    };
    Ok(Json(DagVersionResponse::of(&found, &display_name(&record))))
}

#[derive(Serialize, ToSchema)]
#[schema(as = DAGTagCollectionResponse)]
struct DagTagCollectionResponse {
    tags: Vec<String>,
    total_entries: usize,
}

async fn all_dags(
    tx: &mut dyn Tx,
    filter: &DagFilter,
) -> Result<Vec<gust_model::record::DagRecord>, ApiError> {
    let mut dags = Vec::new();
    loop {
        let offset = u32::try_from(dags.len()).unwrap_or(u32::MAX);
        let page = tx.dags(filter, &Page { limit: BATCH, offset, sort: Vec::new() }).await?;
        let is_last = page.items.len() < BATCH as usize;
        dags.extend(page.items);
        if is_last {
            return Ok(dags);
        }
    }
}

async fn tags(call: Call) -> Result<Json<DagTagCollectionResponse>, ApiError> {
    let query = &call.query;
    let (limit, offset) = window(query, "limit", "offset");
    let contains = pattern(query, "tag_name_pattern")?.map(|text| text.to_lowercase());
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let filter = DagFilter { is_stale: Some(false), ..DagFilter::default() };
    let mut names: Vec<String> = all_dags(&mut *tx, &filter)
        .await?
        .into_iter()
        .flat_map(|dag| dag.tags)
        .filter(|tag| contains.as_ref().is_none_or(|text| tag.to_lowercase().contains(text.as_str())))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if let Some(order) = query.texts("order_by").next() {
        match order {
            "name" => {}
            "-name" => names.reverse(),
            other => return Err(bad_order(other.trim_start_matches('-'))),
        }
    }
    let total_entries = names.len();
    let tags = names.into_iter().skip(offset as usize).take(limit as usize).collect();
    Ok(Json(DagTagCollectionResponse { tags, total_entries }))
}

/// `airflow/api_fastapi/core_api/datamodels/dag_stats.py`.
#[derive(Serialize, ToSchema)]
struct DagStatsStateResponse {
    state: &'static str,
    count: u64,
}

#[derive(Serialize, ToSchema)]
struct DagStatsResponse {
    dag_id: String,
    dag_display_name: String,
    stats: Vec<DagStatsStateResponse>,
}

#[derive(Serialize, ToSchema)]
struct DagStatsCollectionResponse {
    dags: Vec<DagStatsResponse>,
    total_entries: usize,
}

async fn stats(call: Call) -> Result<Json<DagStatsCollectionResponse>, ApiError> {
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let filter =
        DagFilter { dag_ids: call.query.texts("dag_ids").map(Into::into).collect(), ..DagFilter::default() };
    let mut dags = Vec::new();
    for record in all_dags(&mut *tx, &filter).await? {
        let mut stats = Vec::new();
        for state in DagRunState::ALL {
            let count = tx.count_dag_runs(&record.dag_id, &[*state], true).await?;
            stats.push(DagStatsStateResponse { state: state.as_str(), count });
        }
        // Airflow counts from the runs, so a DAG that never ran is not there.
        if stats.iter().any(|stat| stat.count > 0) {
            dags.push(DagStatsResponse {
                dag_id: record.dag_id.to_string(),
                dag_display_name: display_name(&record),
                stats,
            });
        }
    }
    Ok(Json(DagStatsCollectionResponse { total_entries: dags.len(), dags }))
}

/// A span of time as Airflow's API shows it (`airflow/api_fastapi/common/types.py: TimeDelta`).
#[derive(Serialize, ToSchema)]
struct TimeDelta {
    #[serde(rename = "__type")]
    kind: &'static str,
    days: i64,
    seconds: i64,
    microseconds: i64,
}

impl From<chrono::TimeDelta> for TimeDelta {
    fn from(span: chrono::TimeDelta) -> Self {
        let micros = span.num_microseconds().unwrap_or(i64::MAX);
        let seconds = micros.div_euclid(1_000_000);
        Self {
            kind: "TimeDelta",
            days: seconds.div_euclid(86_400),
            seconds: seconds.rem_euclid(86_400),
            microseconds: micros.rem_euclid(1_000_000),
        }
    }
}

/// `airflow/api_fastapi/core_api/datamodels/tasks.py: TaskResponse`.
#[derive(Serialize, ToSchema)]
struct TaskResponse {
    task_id: Option<String>,
    task_display_name: Option<String>,
    owner: Option<String>,
    start_date: Option<Moment>,
    end_date: Option<Moment>,
    trigger_rule: Option<String>,
    depends_on_past: bool,
    wait_for_downstream: bool,
    retries: Option<f64>,
    queue: Option<String>,
    pool: Option<String>,
    pool_slots: Option<f64>,
    execution_timeout: Option<TimeDelta>,
    retry_delay: Option<TimeDelta>,
    retry_exponential_backoff: f64,
    priority_weight: Option<i64>,
    weight_rule: Option<String>,
    ui_color: Option<String>,
    ui_fgcolor: Option<String>,
    template_fields: Option<Vec<String>>,
    downstream_task_ids: Option<Vec<String>>,
    doc_md: Option<String>,
    operator_name: Option<String>,
    params: Option<Map<String, Value>>,
    class_ref: Option<Value>,
    is_mapped: Option<bool>,
    extra_links: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct TaskCollectionResponse {
    tasks: Vec<TaskResponse>,
    total_entries: usize,
}

fn show_task(dag: &Dag, index: TaskIndex) -> TaskResponse {
    let task = dag.task(index);
    let attribute = |name: &str| task.attributes.get(name);
    let text = |name: &str| attribute(name).and_then(Value::as_str).map(str::to_owned);
    TaskResponse {
        task_id: Some(task.task_id.to_string()),
        task_display_name: Some(task.display_name.clone().unwrap_or_else(|| task.task_id.to_string())),
        owner: Some(task.owner.clone()),
        start_date: task.start_date.or(dag.start_date).map(Moment),
        end_date: task.end_date.or(dag.end_date).map(Moment),
        trigger_rule: Some(task.trigger_rule.as_str().to_owned()),
        depends_on_past: task.depends_on_past,
        wait_for_downstream: task.wait_for_downstream,
        retries: Some(f64::from(task.retries)),
        queue: Some(task.queue.to_string()),
        pool: Some(task.pool.to_string()),
        pool_slots: Some(f64::from(task.pool_slots)),
        execution_timeout: task.execution_timeout.map(Into::into),
        retry_delay: Some(task.retry_delay.into()),
        retry_exponential_backoff: task.retry_exponential_backoff,
        priority_weight: Some(task.priority_weight),
        weight_rule: Some(task.weight_rule.as_str().to_owned()),
        ui_color: text("ui_color").or_else(|| Some("#fff".to_owned())),
        ui_fgcolor: text("ui_fgcolor").or_else(|| Some("#000".to_owned())),
        template_fields: Some(
            attribute("template_fields")
                .and_then(Value::as_array)
                .map(|fields| fields.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default(),
        ),
        downstream_task_ids: Some(
            dag.links(index).downstream.iter().map(|next| dag.task(*next).task_id.to_string()).collect(),
        ),
        doc_md: text("doc_md"),
        operator_name: Some(task.operator_name.clone().unwrap_or_else(|| task.task_type.clone())),
        params: Some(match &task.params {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        }),
        class_ref: Some(json!({"module_path": task.task_module, "class_name": task.task_type})),
        is_mapped: Some(task.is_mapped()),
        extra_links: Vec::new(),
    }
}

async fn tasks(call: Call) -> Result<Json<TaskCollectionResponse>, ApiError> {
    let order = call.query.text("order_by").unwrap_or("task_id");
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let (_, graph) = graph_or_404(&call.state, &mut *tx, &call.dag_id()).await?;
    let dag = &graph.dag;
    let mut indexes: Vec<TaskIndex> = dag.task_indexes().collect();
    let task = |index: &TaskIndex| dag.task(*index);
    match order.trim_start_matches('-') {
        "task_id" => indexes.sort_by(|a, b| task(a).task_id.cmp(&task(b).task_id)),
        "task_display_name" => {
            indexes.sort_by_key(|index| {
                task(index).display_name.clone().unwrap_or_else(|| task(index).task_id.to_string())
            });
        }
        "owner" => indexes.sort_by(|a, b| task(a).owner.cmp(&task(b).owner)),
        "start_date" => {
            indexes.sort_by_key(|index| (task(index).start_date.is_none(), task(index).start_date));
        }
        "end_date" => indexes.sort_by_key(|index| (task(index).end_date.is_none(), task(index).end_date)),
        "trigger_rule" => indexes.sort_by_key(|index| task(index).trigger_rule.as_str()),
        "retries" => indexes.sort_by_key(|index| task(index).retries),
        "queue" => indexes.sort_by(|a, b| task(a).queue.cmp(&task(b).queue)),
        "pool" => indexes.sort_by(|a, b| task(a).pool.cmp(&task(b).pool)),
        "pool_slots" => indexes.sort_by_key(|index| task(index).pool_slots),
        "priority_weight" => indexes.sort_by_key(|index| task(index).priority_weight),
        "operator_name" => indexes.sort_by(|a, b| task(a).operator_name.cmp(&task(b).operator_name)),
        other => return Err(bad_order(other)),
    }
    if order.starts_with('-') {
        indexes.reverse();
    }
    let tasks: Vec<_> = indexes.into_iter().map(|index| show_task(dag, index)).collect();
    Ok(Json(TaskCollectionResponse { total_entries: tasks.len(), tasks }))
}

async fn task(call: Call) -> Result<Json<TaskResponse>, ApiError> {
    let task_id = call.task_id();
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let (_, graph) = graph_or_404(&call.state, &mut *tx, &call.dag_id()).await?;
    let index = graph
        .dag
        .index_of(task_id.as_str())
        .ok_or_else(|| ApiError::not_found(format!("Task with id {task_id} was not found")))?;
    Ok(Json(show_task(&graph.dag, index)))
}
