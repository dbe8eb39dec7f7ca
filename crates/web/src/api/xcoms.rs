//! XComs.

use axum::{
    Json,
    http::{Method, StatusCode},
};
use gust_model::{
    MapIndex,
    record::{DagRun, XCom, XComKey},
};
use gust_ports::{
    Tx,
    metastore::{TxMode, XComFilter},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    dag_runs::run_not_found,
    dags::DisplayNames,
    lists::{PAGE, window},
};
use crate::{
    call::Call,
    endpoint::Endpoint,
    error::ApiError,
    inputs::{Field, Kind, TEXT, flag, int, optional, required},
    state::AppState,
    time::Moment,
};

const LIST: &[Field] = &[
    optional("xcom_key", TEXT),
    optional("map_index", Kind::Int(-1)),
    int("limit", 0, PAGE),
    int("offset", 0, 0),
];
const GET: &[Field] = &[int("map_index", -1, -1), flag("deserialize", false), flag("stringify", false)];
const CREATE: &[Field] = &[required("key", TEXT), required("value", Kind::Any), int("map_index", -1, -1)];
const UPDATE: &[Field] = &[required("value", Kind::Any), int("map_index", -1, -1)];
const AT_INDEX: &[Field] = &[int("map_index", -1, -1)];
/// Keys by which the SDK tells serialized objects; a client must not make it build any.
const RESERVED: &[&str] = &["__classname__", "__type", "__var", "__data__", "__version__"];

pub(super) fn endpoints() -> Vec<Endpoint> {
    let tag = "XCom";
    let all = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/xcomEntries";
    let one = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/xcomEntries/{*xcom_key}";
    vec![
        Endpoint::new(Method::GET, all, "get_xcom_entries", list)
            .about(tag, "Lists XComs without their values; ~ stands for all DAGs, runs or tasks.")
            .query(LIST)
            .answers::<XComCollectionResponse>(),
        Endpoint::new(Method::POST, all, "create_xcom_entry", create)
            .about(tag, "Adds an XCom.")
            .body(CREATE)
            .status(201)
            .answers::<XComResponseNative>(),
        Endpoint::new(Method::GET, one, "get_xcom_entry", get)
            .about(tag, "Gives an XCom with its value.")
            .query(GET)
            .answers::<XComResponseNative>(),
        Endpoint::new(Method::PATCH, one, "update_xcom_entry", update)
            .about(tag, "Changes an XCom's value.")
            .body(UPDATE)
            .answers::<XComResponseNative>(),
        Endpoint::new(Method::DELETE, one, "delete_xcom_entry", delete)
            .about(tag, "Removes an XCom.")
            .query(AT_INDEX)
            .status(204),
    ]
}

/// `airflow/api_fastapi/core_api/datamodels/xcom.py: XComResponse`.
#[derive(Serialize, ToSchema)]
struct XComResponse {
    key: String,
    timestamp: Moment,
    logical_date: Option<Moment>,
    map_index: i32,
    task_id: String,
    dag_id: String,
    run_id: String,
    dag_display_name: String,
    task_display_name: String,
    run_after: Moment,
}

#[derive(Serialize, ToSchema)]
struct XComCollectionResponse {
    xcom_entries: Vec<XComResponse>,
    total_entries: u64,
}

#[derive(Serialize, ToSchema)]
struct XComResponseNative {
    #[serde(flatten)]
    xcom: XComResponse,
    value: Value,
}

async fn describe(
    state: &AppState,
    tx: &mut dyn Tx,
    names: &mut DisplayNames,
    xcom: &XCom,
) -> Result<XComResponse, ApiError> {
    let run = tx
        .dag_run_by_id(xcom.key.dag_run_id)
        .await?
        .ok_or_else(|| run_not_found(&xcom.dag_id, &xcom.run_id))?;
    let graph = state.graph(tx, run.dag_version_id).await?;
    let task_name = graph.as_ref().and_then(|graph| {
        let task = graph.dag.index_of(xcom.key.task_id.as_str())?;
        graph.dag.task(task).display_name.clone()
    });
    Ok(XComResponse {
        key: xcom.key.key.clone(),
        timestamp: xcom.timestamp.into(),
        logical_date: run.logical_date.map(Moment),
        map_index: xcom.key.map_index.0,
        task_id: xcom.key.task_id.to_string(),
        dag_id: xcom.dag_id.to_string(),
        run_id: xcom.run_id.to_string(),
        dag_display_name: names.get(tx, &xcom.dag_id).await?,
        task_display_name: task_name.unwrap_or_else(|| xcom.key.task_id.to_string()),
        run_after: run.run_after.into(),
    })
}

async fn list(call: Call) -> Result<Json<XComCollectionResponse>, ApiError> {
    let (limit, offset) = window(&call.query, "limit", "offset");
    let task_id = call.task_id();
    let filter = XComFilter {
        dag_id: call.one_dag(),
        run_id: call.one_run(),
        task_id: (task_id != "~").then_some(task_id),
        map_index: call.query.int("map_index").and_then(|index| i32::try_from(index).ok()).map(MapIndex),
        key: call.query.owned("xcom_key"),
    };
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let found = tx.xcoms(&filter, limit, offset).await?;
    let mut names = DisplayNames::default();
    let mut xcom_entries = Vec::with_capacity(found.items.len());
    for xcom in &found.items {
        xcom_entries.push(describe(&call.state, &mut *tx, &mut names, xcom).await?);
    }
    Ok(Json(XComCollectionResponse { xcom_entries, total_entries: found.total }))
}

fn key_of(call: &Call, run: &DagRun, key: &str, map_index: i64) -> Result<XComKey, ApiError> {
    let index = i32::try_from(map_index)
        .map_err(|_| ApiError::bad_request(format!("{map_index} is no map index; it is -1 or more")))?;
    Ok(XComKey {
        dag_run_id: run.id,
        task_id: call.task_id(),
        map_index: MapIndex(index),
        key: key.to_owned(),
    })
}

async fn get(call: Call) -> Result<Json<XComResponseNative>, ApiError> {
    let key = call.segment("xcom_key");
    let missing = || ApiError::not_found(format!("XCom entry with key: `{key}` not found"));
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let run = tx.dag_run(&call.dag_id(), &call.run_id()).await?.ok_or_else(missing)?;
    let key = key_of(&call, &run, key, call.query.int("map_index").unwrap_or(-1))?;
    let xcom = tx.xcom(&key).await?.ok_or_else(missing)?;
    let described = describe(&call.state, &mut *tx, &mut DisplayNames::default(), &xcom).await?;
    let mut value = xcom.value;
    if call.query.is_set("deserialize") {
        // A client may have stored JSON as a text; Airflow reads through it.
        if let Value::String(text) = &value
            && let Ok(inner) = serde_json::from_str(text)
        {
            value = inner;
        }
        value = readable(&value);
    }
    if call.query.is_set("stringify") && !value.is_null() {
        value = Value::from(python_str(&value));
    }
    Ok(Json(XComResponseNative { xcom: described, value }))
}

/// A serialized value as people read it (`airflow/serialization/stringify.py`): plain values stay, objects become a
/// text that names their class and fields.
fn readable(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(readable).collect(),
        Value::Object(fields) => {
            if fields.get("__type").and_then(Value::as_str) == Some("dict")
                && let Some(inner) = fields.get("__var")
            {
                return readable(inner);
            }
            let class = fields.get("__classname__").or_else(|| fields.get("__type")).and_then(Value::as_str);
            let data = fields.get("__data__").or_else(|| fields.get("__var")).unwrap_or(&Value::Null);
            let Some(class) = class else {
                return Value::Object(
                    fields.iter().map(|(key, value)| (key.clone(), readable(value))).collect(),
                );
            };
            let version = fields.get("__version__").map_or_else(|| "0".to_owned(), Value::to_string);
            Value::from(object_text(class, &version, data))
        }
        other => other.clone(),
    }
}

fn object_text(class: &str, version: &str, data: &Value) -> String {
    let joined =
        |items: &[Value]| items.iter().map(|item| python_str(&readable(item))).collect::<Vec<_>>().join(",");
    if let ("builtins.tuple" | "builtins.set" | "builtins.frozenset", Value::Array(items)) = (class, data) {
        return format!("({})", joined(items));
    }
    let inside = match data {
        Value::Array(items) => joined(items),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| match value {
                Value::String(_) => format!("{key}={}", python_repr(value)),
                _ => format!("{key}={}", python_str(&readable(value))),
            })
            .collect::<Vec<_>>()
            .join(", "),
        Value::Null => String::new(),
        other => python_str(other),
    };
    format!("{class}@version={version}({inside})")
}

/// What Python's `str` makes of a value.
fn python_str(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => python_repr(other),
    }
}

/// What Python's `repr` makes of a value.
fn python_repr(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => {
            let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            let mut shown = String::from(quote);
            for c in text.chars() {
                match c {
                    '\\' => shown += "\\\\",
                    '\n' => shown += "\\n",
                    '\r' => shown += "\\r",
                    '\t' => shown += "\\t",
                    c if c == quote => {
                        shown.push('\\');
                        shown.push(c);
                    }
                    c => shown.push(c),
                }
            }
            shown.push(quote);
            shown
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(python_repr).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let pairs = fields
                .iter()
                .map(|(key, value)| {
                    format!("{}: {}", python_repr(&Value::from(key.as_str())), python_repr(value))
                })
                .collect::<Vec<_>>();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

/// Refuses values that the SDK would take for serialized objects.
fn check_value(value: &Value, call: &Call) -> Result<(), ApiError> {
    fn reserved(value: &Value) -> Option<String> {
        match value {
            Value::Object(fields) => fields
                .keys()
                .find(|key| RESERVED.contains(&key.as_str()))
                .cloned()
                .or_else(|| fields.values().find_map(reserved)),
            Value::Array(items) => items.iter().find_map(reserved),
            Value::String(text) => {
                let inner: Value = serde_json::from_str(text).ok()?;
                if inner.is_string() { None } else { reserved(&inner) }
            }
            _ => None,
        }
    }
    match reserved(value) {
        None => Ok(()),
        Some(key) => Err(ApiError::invalid_body(
            &format!(
                "XCom value contains reserved serialization keys: {key}. These keys are reserved for internal use."
            ),
            &call.raw_body,
        )),
    }
}

fn not_there(key: &str) -> ApiError {
    ApiError::not_found(format!("The XCom with key: `{key}` with mentioned task instance doesn't exist."))
}

async fn create(call: Call) -> Result<(StatusCode, Json<XComResponseNative>), ApiError> {
    let (dag_id, run_id, task_id) = (call.dag_id(), call.run_id(), call.task_id());
    let value = call.body.value("value").cloned().unwrap_or(Value::Null);
    check_value(&value, &call)?;
    let name = call.body.text("key").unwrap_or_default();
    let mut tx = call.state.metastore.begin(TxMode::Write).await?;
    let run = tx.dag_run(&dag_id, &run_id).await?.ok_or_else(|| {
        ApiError::not_found(format!("Dag Run with ID: `{run_id}` not found for dag: `{dag_id}`"))
    })?;
    let graph = call.state.graph(&mut *tx, run.dag_version_id).await?;
    if graph.is_none_or(|graph| graph.dag.index_of(task_id.as_str()).is_none()) {
        return Err(ApiError::not_found(format!("Task with ID: `{task_id}` not found in dag: `{dag_id}`")));
    }
    let key = key_of(&call, &run, name, call.body.int("map_index").unwrap_or(-1))?;
    if tx.xcom(&key).await?.is_some() {
        return Err(ApiError::conflict(format!(
            "The XCom with key: `{name}` with mentioned task instance already exists."
        )));
    }
    let timestamp = tx.now().await?;
    let xcom = XCom { key, dag_id, run_id, value, mapped_length: None, is_dag_result: false, timestamp };
    tx.put_xcoms(std::slice::from_ref(&xcom)).await?;
    let described = describe(&call.state, &mut *tx, &mut DisplayNames::default(), &xcom).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(XComResponseNative { xcom: described, value: xcom.value })))
}

async fn update(call: Call) -> Result<Json<XComResponseNative>, ApiError> {
    let name = call.segment("xcom_key");
    let value = call.body.value("value").cloned().unwrap_or(Value::Null);
    check_value(&value, &call)?;
    let mut tx = call.state.metastore.begin(TxMode::Write).await?;
    let run = tx.dag_run(&call.dag_id(), &call.run_id()).await?.ok_or_else(|| not_there(name))?;
    let key = key_of(&call, &run, name, call.body.int("map_index").unwrap_or(-1))?;
    let mut xcom = tx.xcom(&key).await?.ok_or_else(|| not_there(name))?;
    xcom.value = value;
    xcom.timestamp = tx.now().await?;
    tx.put_xcoms(std::slice::from_ref(&xcom)).await?;
    let described = describe(&call.state, &mut *tx, &mut DisplayNames::default(), &xcom).await?;
    tx.commit().await?;
    Ok(Json(XComResponseNative { xcom: described, value: xcom.value }))
}

async fn delete(call: Call) -> Result<StatusCode, ApiError> {
    let name = call.segment("xcom_key");
    let mut tx = call.state.metastore.begin(TxMode::Write).await?;
    let run = tx.dag_run(&call.dag_id(), &call.run_id()).await?.ok_or_else(|| not_there(name))?;
    let key = key_of(&call, &run, name, call.query.int("map_index").unwrap_or(-1))?;
    if !tx.delete_xcom(&key).await? {
        return Err(not_there(name));
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({"a": [1, null, true, "x'y"]}), "{'a': [1, None, True, \"x'y\"]}")]
    #[case(json!("plain"), "plain")]
    #[case(json!({"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1, "b"]}), "(1,b)")]
    #[case(json!({"__classname__": "m.C", "__version__": 2, "__data__": {"a": "x", "b": 1}}), "m.C@version=2(a='x', b=1)")]
    fn values_read_as_airflow_words_them(#[case] value: Value, #[case] shown: &str) {
        assert_eq!(python_str(&readable(&value)), shown);
    }
}
