//! Variables and Connections. What is secret by its name is never shown.

use axum::{
    Json,
    http::{Method, StatusCode},
};
use gust_model::{
    ConnectionId, VariableKey,
    record::{ConnectionRecord, VariableRecord},
};
use gust_ports::metastore::TxMode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::lists::{PAGE, TEXT_LIST, bad_order, pattern, window};
use crate::{
    call::Call,
    endpoint::{Access, Endpoint},
    error::ApiError,
    inputs::{Field, Kind, TEXT, int, optional, required},
    mask::{MASK, is_sensitive, redact, unmask},
    state::AppState,
};

const ID: Kind = Kind::Text(250);
const VARIABLES: &[Field] = &[
    int("limit", 0, PAGE),
    int("offset", 0, 0),
    optional("order_by", TEXT_LIST),
    optional("variable_key_prefix_pattern", TEXT),
];
const CONNECTIONS: &[Field] = &[
    int("limit", 0, PAGE),
    int("offset", 0, 0),
    optional("order_by", TEXT_LIST),
    optional("connection_id_pattern", TEXT),
];
const VARIABLE: &[Field] = &[
    required("key", ID),
    required("value", Kind::Any),
    optional("description", TEXT),
    optional("team_name", TEXT),
];
const CONNECTION: &[Field] = &[
    required("connection_id", ID),
    required("conn_type", TEXT),
    optional("description", TEXT),
    optional("host", TEXT),
    optional("login", TEXT),
    optional("schema", TEXT),
    optional("port", Kind::Int(0)),
    optional("password", TEXT),
    optional("extra", TEXT),
    optional("team_name", TEXT),
];
const UPDATE_MASK: &[Field] = &[optional("update_mask", TEXT_LIST)];

pub(super) fn endpoints() -> Vec<Endpoint> {
    let (variable, connection) = ("Variable", "Connection");
    vec![
        Endpoint::new(Method::GET, "/api/v2/variables", "get_variables", variables)
            .about(variable, "Lists Variables.")
            .query(VARIABLES)
            .access(Access::Write)
            .answers::<VariableCollectionResponse>(),
        Endpoint::new(Method::POST, "/api/v2/variables", "post_variable", post_variable)
            .about(variable, "Adds a Variable.")
            .body(VARIABLE)
            .status(201)
            .answers::<VariableResponse>(),
        Endpoint::new(Method::GET, "/api/v2/variables/{*variable_key}", "get_variable", get_variable)
            .about(variable, "Gives a Variable.")
            .access(Access::Write)
            .answers::<VariableResponse>(),
        Endpoint::new(Method::PATCH, "/api/v2/variables/{*variable_key}", "patch_variable", patch_variable)
            .about(variable, "Changes a Variable.")
            .query(UPDATE_MASK)
            .body(VARIABLE)
            .answers::<VariableResponse>(),
        Endpoint::new(
            Method::DELETE,
            "/api/v2/variables/{*variable_key}",
            "delete_variable",
            delete_variable,
        )
        .about(variable, "Removes a Variable.")
        .status(204),
        Endpoint::new(Method::GET, "/api/v2/connections", "get_connections", connections)
            .about(connection, "Lists Connections.")
            .query(CONNECTIONS)
            .access(Access::Write)
            .answers::<ConnectionCollectionResponse>(),
        Endpoint::new(Method::POST, "/api/v2/connections", "post_connection", post_connection)
            .about(connection, "Adds a Connection.")
            .body(CONNECTION)
            .status(201)
            .answers::<ConnectionResponse>(),
        Endpoint::new(Method::GET, "/api/v2/connections/{connection_id}", "get_connection", get_connection)
            .about(connection, "Gives a Connection without its secrets.")
            .access(Access::Write)
            .answers::<ConnectionResponse>(),
        Endpoint::new(
            Method::PATCH,
            "/api/v2/connections/{connection_id}",
            "patch_connection",
            patch_connection,
        )
        .about(connection, "Changes a Connection.")
        .query(UPDATE_MASK)
        .body(CONNECTION)
        .answers::<ConnectionResponse>(),
        Endpoint::new(
            Method::DELETE,
            "/api/v2/connections/{connection_id}",
            "delete_connection",
            delete_connection,
        )
        .about(connection, "Removes a Connection.")
        .status(204),
    ]
}

/// `airflow/api_fastapi/core_api/datamodels/variables.py: VariableResponse`.
#[derive(Serialize, ToSchema)]
struct VariableResponse {
    key: String,
    value: Option<String>,
    description: Option<String>,
    is_encrypted: bool,
    team_name: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct VariableCollectionResponse {
    variables: Vec<VariableResponse>,
    total_entries: u64,
}

fn no_teams(call: &Call) -> Result<(), ApiError> {
    if call.body.text("team_name").is_some() {
        let text =
            "team_name cannot be set when multi_team mode is disabled. Please contact your administrator.";
        return Err(ApiError::invalid_body(text, &call.raw_body));
    }
    Ok(())
}

fn place(key: &VariableKey) -> String {
    format!("variable/{key}/value")
}

fn show_variable(state: &AppState, record: &VariableRecord) -> Result<VariableResponse, ApiError> {
    let plain = state.cipher.open(&place(&record.key), &record.sealed_value)?;
    let shown = if is_sensitive(record.key.as_str()) {
        MASK.to_owned()
    } else {
        match serde_json::from_str::<Value>(&plain) {
            Ok(value @ (Value::Object(_) | Value::Array(_))) => redact(value).to_string(),
            _ => plain,
        }
    };
    Ok(VariableResponse {
        key: record.key.to_string(),
        value: Some(shown),
        description: record.description.clone(),
        is_encrypted: true,
        team_name: None,
    })
}

fn variable_not_found(key: &str) -> ApiError {
    ApiError::not_found(format!("The Variable with key: `{key}` was not found"))
}

async fn variables(call: Call) -> Result<Json<VariableCollectionResponse>, ApiError> {
    if let Some(order) = call.query.texts("order_by").find(|order| !matches!(*order, "key" | "id")) {
        return Err(bad_order(order.trim_start_matches('-')));
    }
    let (limit, offset) = window(&call.query, "limit", "offset");
    let prefix = call.query.text("variable_key_prefix_pattern").unwrap_or_default();
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let found = tx.variables(prefix, limit, offset).await?;
    let shown: Result<Vec<_>, _> =
        found.items.iter().map(|record| show_variable(&call.state, record)).collect();
    Ok(Json(VariableCollectionResponse { variables: shown?, total_entries: found.total }))
}

async fn get_variable(call: Call) -> Result<Json<VariableResponse>, ApiError> {
    let key = call.segment("variable_key");
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let record = tx.variable(&key.into()).await?.ok_or_else(|| variable_not_found(key))?;
    Ok(Json(show_variable(&call.state, &record)?))
}

/// A Variable's value as text: texts as they are, other JSON as Airflow writes it.
fn value_text(call: &Call) -> String {
    match call.body.value("value") {
        Some(Value::String(text)) => text.clone(),
        None => "null".to_owned(),
        Some(other) => serde_json::to_string_pretty(other).unwrap_or_else(|_| other.to_string()),
    }
}

async fn post_variable(call: Call) -> Result<(StatusCode, Json<VariableResponse>), ApiError> {
    no_teams(&call)?;
    let key = VariableKey::from(call.body.text("key").unwrap_or_default());
    let mut tx = call.state.metastore.begin(TxMode::Write).await?;
    if tx.variable(&key).await?.is_some() {
        return Err(ApiError::conflict(format!("The Variable with key: `{key}` already exists")));
    }
    let record = VariableRecord {
        sealed_value: call.state.cipher.seal(&place(&key), &value_text(&call))?,
        description: call.body.owned("description"),
        key,
    };
    tx.put_variable(&record).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(show_variable(&call.state, &record)?)))
}

async fn patch_variable(call: Call) -> Result<Json<VariableResponse>, ApiError> {
    no_teams(&call)?;
    let key = call.segment("variable_key");
    if call.body.text("key") != Some(key) {
        return Err(ApiError::bad_request("Invalid body, key from request body doesn't match uri parameter"));
    }
    let mask: Vec<&str> = call.query.texts("update_mask").collect();
    let is_wanted = |name: &str| call.body.is_given(name) && (mask.is_empty() || mask.contains(&name));
    let mut tx = call.state.metastore.begin(TxMode::Write).await?;
    let mut record = tx.variable(&key.into()).await?.ok_or_else(|| variable_not_found(key))?;
    if is_wanted("value") {
        record.sealed_value = call.state.cipher.seal(&place(&record.key), &value_text(&call))?;
    }
    if is_wanted("description") {
        record.description = call.body.owned("description");
    }
    tx.put_variable(&record).await?;
    tx.commit().await?;
    Ok(Json(show_variable(&call.state, &record)?))
}

async fn delete_variable(call: Call) -> Result<StatusCode, ApiError> {
    let key = call.segment("variable_key");
    let mut tx = call.state.metastore.begin(TxMode::Write).await?;
    if !tx.delete_variable(&key.into()).await? {
        return Err(variable_not_found(key));
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `airflow/api_fastapi/core_api/datamodels/connections.py: ConnectionResponse`.
#[derive(Serialize, ToSchema)]
struct ConnectionResponse {
    connection_id: String,
    conn_type: String,
    description: Option<String>,
    host: Option<String>,
    login: Option<String>,
    schema: Option<String>,
    port: Option<i32>,
    password: Option<String>,
    extra: Option<String>,
    team_name: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct ConnectionCollectionResponse {
    connections: Vec<ConnectionResponse>,
    total_entries: u64,
}

fn password_place(id: &ConnectionId) -> String {
    format!("connection/{id}/password")
}

fn extra_place(id: &ConnectionId) -> String {
    format!("connection/{id}/extra")
}

fn open_extra(state: &AppState, record: &ConnectionRecord) -> Result<Option<String>, ApiError> {
    let sealed = record.sealed_extra.as_deref();
    Ok(sealed.map(|sealed| state.cipher.open(&extra_place(&record.conn_id), sealed)).transpose()?)
}

fn show_connection(state: &AppState, record: &ConnectionRecord) -> Result<ConnectionResponse, ApiError> {
    let extra = open_extra(state, record)?.map(|extra| match serde_json::from_str::<Value>(&extra) {
        Ok(value) => redact(value).to_string(),
        Err(_) if extra.is_empty() => extra,
        // Text that is no JSON cannot be looked through for secrets.
        Err(_) => MASK.to_owned(),
    });
    Ok(ConnectionResponse {
        connection_id: record.conn_id.to_string(),
        conn_type: record.conn_type.clone(),
        description: record.description.clone(),
        host: record.host.clone(),
        login: record.login.clone(),
        schema: record.schema.clone(),
        port: record.port,
        password: record.sealed_password.as_ref().map(|_| MASK.to_owned()),
        extra,
        team_name: None,
    })
}

fn connection_not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("The Connection with connection_id: `{id}` was not found"))
}

async fn connections(call: Call) -> Result<Json<ConnectionCollectionResponse>, ApiError> {
    let by_id = |order: &&str| !matches!(*order, "conn_id" | "connection_id" | "id");
    if let Some(order) = call.query.texts("order_by").find(by_id) {
        return Err(bad_order(order.trim_start_matches('-')));
    }
    let (limit, offset) = window(&call.query, "limit", "offset");
    let contains = pattern(&call.query, "connection_id_pattern")?.unwrap_or_default();
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let found = tx.connections(&contains, limit, offset).await?;
    let shown: Result<Vec<_>, _> =
        found.items.iter().map(|record| show_connection(&call.state, record)).collect();
    Ok(Json(ConnectionCollectionResponse { connections: shown?, total_entries: found.total }))
}

async fn get_connection(call: Call) -> Result<Json<ConnectionResponse>, ApiError> {
    let id = call.segment("connection_id");
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let record = tx.connection(&id.into()).await?.ok_or_else(|| connection_not_found(id))?;
    Ok(Json(show_connection(&call.state, &record)?))
}

/// Writes what the body gives into a record. A mask that was sent back stands for the secret that is stored.
fn apply(call: &Call, record: &mut ConnectionRecord, mask: &[&str]) -> Result<(), ApiError> {
    no_teams(call)?;
    let body = &call.body;
    let is_wanted = |name: &str| body.is_given(name) && (mask.is_empty() || mask.contains(&name));
    if is_wanted("conn_type") {
        record.conn_type = body.owned("conn_type").unwrap_or_default();
    }
    for (name, value) in [
        ("description", &mut record.description),
        ("host", &mut record.host),
        ("login", &mut record.login),
        ("schema", &mut record.schema),
    ] {
        if is_wanted(name) {
            *value = body.owned(name);
        }
    }
    if is_wanted("port") {
        record.port = match body.int("port").map(i32::try_from) {
            None => None,
            Some(Ok(port)) => Some(port),
            Some(Err(_)) => return Err(ApiError::invalid_body("port is too large", &call.raw_body)),
        };
    }
    if is_wanted("password") {
        match body.text("password") {
            None => record.sealed_password = None,
            Some(MASK) if record.sealed_password.is_some() => {}
            Some(password) => {
                let sealed = call.state.cipher.seal(&password_place(&record.conn_id), password)?;
                record.sealed_password = Some(sealed);
            }
        }
    }
    if is_wanted("extra") {
        record.sealed_extra = match body.text("extra") {
            None => None,
            Some(extra) => {
                let sent: Value = if extra.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_str(extra).map_err(|error| {
                        let text =
                            format!("The `extra` field must be a valid JSON object in string form: {error}");
                        ApiError::invalid_body(&text, &call.raw_body)
                    })?
                };
                let stored = open_extra(&call.state, record)?
                    .and_then(|extra| serde_json::from_str(&extra).ok())
                    .unwrap_or(Value::Null);
                let kept = if sent.is_null() { extra.to_owned() } else { unmask(sent, &stored).to_string() };
                Some(call.state.cipher.seal(&extra_place(&record.conn_id), &kept)?)
            }
        };
    }
    Ok(())
}

async fn post_connection(call: Call) -> Result<(StatusCode, Json<ConnectionResponse>), ApiError> {
    let id = call.body.text("connection_id").unwrap_or_default();
    let is_good = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.#!()-/".contains(&b));
    if !is_good {
        let text = "The connection_id may hold letters, digits and _.#!()-/ only";
        return Err(ApiError::invalid_body(text, &call.raw_body));
    }
    let mut record = ConnectionRecord {
        conn_id: id.into(),
        conn_type: String::new(),
        description: None,
        host: None,
        schema: None,
        login: None,
        sealed_password: None,
        port: None,
        sealed_extra: None,
    };
    apply(&call, &mut record, &[])?;
    let mut tx = call.state.metastore.begin(TxMode::Write).await?;
    if tx.connection(&record.conn_id).await?.is_some() {
        return Err(ApiError::Unique(format!("a Connection with connection_id: `{id}` already exists")));
    }
    tx.put_connection(&record).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(show_connection(&call.state, &record)?)))
}

async fn patch_connection(call: Call) -> Result<Json<ConnectionResponse>, ApiError> {
    let id = call.segment("connection_id");
    if call.body.text("connection_id") != Some(id) {
        return Err(ApiError::bad_request(
            "The connection_id in the request body does not match the URL parameter",
        ));
    }
    let mut tx = call.state.metastore.begin(TxMode::Write).await?;
    let mut record = tx.connection(&id.into()).await?.ok_or_else(|| connection_not_found(id))?;
    let mask: Vec<&str> = call.query.texts("update_mask").collect();
    apply(&call, &mut record, &mask)?;
    tx.put_connection(&record).await?;
    tx.commit().await?;
    Ok(Json(show_connection(&call.state, &record)?))
}

async fn delete_connection(call: Call) -> Result<StatusCode, ApiError> {
    let id = call.segment("connection_id");
    let mut tx = call.state.metastore.begin(TxMode::Write).await?;
    if !tx.delete_connection(&id.into()).await? {
        return Err(connection_not_found(id));
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
