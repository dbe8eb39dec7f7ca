use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, StatusCode, header},
};
use gust_model::{DagId, MapIndex, RunId, TaskId};
use serde_json::{Value, json};

use crate::{
    auth::{Identity, Role},
    endpoint::{Access, Shape},
    error::ApiError,
    inputs::Inputs,
    state::AppState,
};

/// A call of an endpoint, its values checked.
pub(crate) struct Call {
    pub state: AppState,
    pub who: Identity,
    pub headers: HeaderMap,
    /// The query's values.
    pub query: Inputs,
    /// The body's values.
    pub body: Inputs,
    /// The body as it came, for messages about all of it.
    pub raw_body: Value,
    path: BTreeMap<String, String>,
}

impl Call {
    /// A segment of the path, decoded.
    pub(crate) fn segment(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    pub(crate) fn dag_id(&self) -> DagId {
        self.segment("dag_id").into()
    }

    /// The DAG, unless the path asks for all of them (`~`).
    pub(crate) fn one_dag(&self) -> Option<DagId> {
        one(self.segment("dag_id"))
    }

    pub(crate) fn run_id(&self) -> RunId {
        self.segment("dag_run_id").into()
    }

    /// The run, unless the path asks for all of them (`~`).
    pub(crate) fn one_run(&self) -> Option<RunId> {
        one(self.segment("dag_run_id"))
    }

    pub(crate) fn task_id(&self) -> TaskId {
        self.segment("task_id").into()
    }

    /// A whole number in the path.
    pub(crate) fn number<N: std::str::FromStr>(&self, name: &str) -> Result<N, ApiError> {
        let text = self.segment(name);
        text.parse().map_err(|_| {
            let message = "Input should be a valid integer, unable to parse string as an integer";
            ApiError::Invalid(vec![
                json!({"type": "int_parsing", "loc": ["path", name], "msg": message, "input": text}),
            ])
        })
    }

    /// The map index of the path if it has one, else of the query, else of a task that is not mapped.
    pub(crate) fn map_index(&self) -> Result<MapIndex, ApiError> {
        if self.path.contains_key("map_index") {
            return Ok(MapIndex(self.number("map_index")?));
        }
        let index = self.query.int("map_index").unwrap_or(-1);
        i32::try_from(index)
            .map(MapIndex)
            .map_err(|_| ApiError::bad_request(format!("{index} is no map index; it is -1 or more")))
    }
}

fn one<T: for<'a> From<&'a str>>(text: &str) -> Option<T> {
    (text != "~").then(|| text.into())
}

impl FromRequest<AppState> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let missing = |what: &str| ApiError::Internal(format!("the request lacks its {what}"));
        let shape = parts.extensions.get::<Arc<Shape>>().cloned().ok_or_else(|| missing("shape"))?;
        let who = parts.extensions.get::<Identity>().cloned().unwrap_or_else(Identity::nobody);
        if shape.access == Access::Write && who.role != Role::Admin {
            return Err(ApiError::Status(StatusCode::FORBIDDEN, "Forbidden".into()));
        }
        let path = RawPathParams::from_request_parts(&mut parts, state)
            .await
            .map_err(|_| ApiError::bad_request("the path is not valid UTF-8 once decoded"))?
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let query = Inputs::from_query(shape.query, &pairs)?;
        let (body, raw_body) = match shape.body {
            None => (Inputs::default(), Value::Null),
            Some(fields) => {
                let bytes = read(body, state.settings.max_body_bytes).await?;
                let is_json =
                    parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_none_or(
                        |kind| kind.split(';').next().is_some_and(|kind| kind.trim().ends_with("json")),
                    );
                if !is_json {
                    return Err(ApiError::Status(
                        StatusCode::UNSUPPORTED_MEDIA_TYPE,
                        "the body must be JSON, with the Content-Type application/json".into(),
                    ));
                }
                let raw = if bytes.is_empty() { json!({}) } else { parse(&bytes)? };
                (Inputs::from_body(fields, &raw)?, raw)
            }
        };
        Ok(Self { state: state.clone(), who, headers: parts.headers, query, body, raw_body, path })
    }
}

async fn read(body: axum::body::Body, most: usize) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, most).await.map_err(|_| {
        let text = format!("the body could not be read, or is larger than {most} bytes");
        ApiError::Status(StatusCode::PAYLOAD_TOO_LARGE, text)
    })
}

fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        ApiError::Invalid(vec![json!({
            "type": "json_invalid",
            "loc": ["body", error.column()],
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": error.to_string()},
        })])
    })
}
