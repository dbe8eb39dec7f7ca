//! Task logs.

use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use gust_model::{MapIndex, record::TaskInstance};
use gust_ports::{Tx, metastore::TxMode};
use gust_task_log::{LogLine, LogPosition, ReadError, TryLog, read_log};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::{
    call::Call,
    endpoint::Endpoint,
    error::ApiError,
    inputs::{Field, TEXT, flag, int, optional},
};

const QUERY: &[Field] = &[flag("full_content", false), int("map_index", -1, -1), optional("token", TEXT)];
/// The header in which an NDJSON answer says where the next one starts.
const CONTINUATION: HeaderName = HeaderName::from_static("airflow-continuation-token");

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/logs/{try_number}",
            "get_log",
            get,
        )
        .about(
            "Task Instance",
            "Gives the log of a try, behind the token of an earlier answer if one is given.",
        )
        .query(QUERY)
        .answers::<TaskInstancesLogResponse>(),
    ]
}

/// `airflow/api_fastapi/core_api/datamodels/log.py: TaskInstancesLogResponse`. The content is a list of objects with
/// `event`, perhaps `timestamp`, and what else the task logged.
#[derive(Serialize, ToSchema)]
struct TaskInstancesLogResponse {
    content: Vec<Value>,
    continuation_token: Option<String>,
}

/// The try that was asked for, if it ever was.
async fn find(
    tx: &mut dyn Tx,
    call: &Call,
    map_index: MapIndex,
    number: i32,
) -> Result<Option<TaskInstance>, ApiError> {
    let Some(run) = tx.dag_run(&call.dag_id(), &call.run_id()).await? else { return Ok(None) };
    let Some(row) = tx.task_instance_at(run.id, &call.task_id(), map_index).await? else { return Ok(None) };
    if row.try_number == number {
        return Ok(Some(row));
    }
    Ok(tx.tries(row.id).await?.into_iter().find(|kept| kept.try_number == number))
}

/// A line in the form that Airflow's clients read: an object with at least an event.
fn message(line: LogLine) -> Value {
    match line {
        Value::Object(mut fields) => {
            let event = fields.get("event").cloned().unwrap_or(Value::Null);
            if !event.is_string() {
                let text = if event.is_null() { String::new() } else { event.to_string() };
                fields.insert("event".into(), Value::String(text));
            }
            Value::Object(fields)
        }
        Value::String(text) => json!({ "event": text }),
        other => json!({ "event": other.to_string() }),
    }
}

fn wants_lines(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/x-ndjson"))
}

async fn get(call: Call) -> Result<Response, ApiError> {
    let number: i32 = call.number("try_number")?;
    let map_index = call.map_index()?;
    let bad_token =
        || ApiError::bad_request("Bad Signature. Please use only the tokens provided by the API.");
    let after: Option<LogPosition> = match call.query.text("token").filter(|token| !token.is_empty()) {
        Some(token) if token != "start" => Some(token.parse().map_err(|_: ReadError| bad_token())?),
        _ => None,
    };
    let row = {
        let mut tx = call.state.metastore.begin(TxMode::Read).await?;
        find(&mut *tx, &call, map_index, number).await?
    };
    let row = row.ok_or_else(|| ApiError::not_found("TaskInstance not found"))?;
    // A task that is not over may go on writing, in this epoch or, after a deferral, in the next.
    let may_grow = !row.state.is_finished() && row.state.is_under_way();
    let log = TryLog { try_number: number, ..TryLog::of(&row) };
    let limit =
        if call.query.is_set("full_content") { usize::MAX } else { call.state.settings.max_log_lines };
    let page = read_log(&*call.state.store, &log, after, limit).await.map_err(|error| match error {
        ReadError::BadPosition(_) => bad_token(),
        ReadError::Store(error) => ApiError::Internal(error.to_string()),
    })?;
    let is_over = !page.has_more && !may_grow;
    let token = (!is_over).then(|| page.position.map_or_else(|| "start".to_owned(), |at| at.to_string()));
    let content: Vec<Value> = page.lines.into_iter().map(message).collect();
    if !wants_lines(&call.headers) {
        return Ok(Json(TaskInstancesLogResponse { content, continuation_token: token }).into_response());
    }
    let mut text = String::new();
    for line in &content {
        text += &line.to_string();
        text.push('\n');
    }
    let mut response = ([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response();
    if let Some(value) = token.and_then(|token| HeaderValue::from_str(&token).ok()) {
        response.headers_mut().insert(CONTINUATION, value);
    }
    Ok(response)
}
