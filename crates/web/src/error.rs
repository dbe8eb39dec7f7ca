use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use gust_operations::OperationError;
use gust_ports::{MetastoreError, metastore::AsMetastoreError};
use serde_json::{Value, json};

/// Why a request is not answered as it asked, in the form in which Airflow's API says so.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Values of the request are not what they must be: one entry each, in FastAPI's shape.
    #[error("the request is not valid: {}", Value::from(.0.clone()))]
    Invalid(Vec<Value>),
    /// A status and a sentence.
    #[error("{0}: {1}")]
    Status(StatusCode, String),
    /// Something must be unique and is not.
    #[error("{0}")]
    Unique(String),
    /// The metastore did not do its part. The caller is told no more than whether to come again.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// Something else inside failed; the log says what, the answer does not.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// 404 with this sentence.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::Status(StatusCode::NOT_FOUND, text.into())
    }

    /// 400 with this sentence.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::Status(StatusCode::BAD_REQUEST, text.into())
    }

    /// 409 with this sentence.
    pub fn conflict(text: impl Into<String>) -> Self {
        Self::Status(StatusCode::CONFLICT, text.into())
    }

    /// 422 for the request as a whole, as a validator of Airflow's words it.
    #[must_use]
    pub fn invalid_body(text: &str, input: &Value) -> Self {
        Self::Invalid(vec![
            json!({"type": "value_error", "loc": ["body"], "msg": format!("Value error, {text}"), "input": input}),
        ])
    }

    fn parts(&self) -> (StatusCode, Value) {
        match self {
            Self::Invalid(errors) => (StatusCode::UNPROCESSABLE_ENTITY, json!(errors)),
            Self::Status(status, text) => (*status, json!(text)),
            Self::Unique(text) => (
                StatusCode::CONFLICT,
                json!({
                    "reason": "Unique constraint violation",
                    "statement": "hidden",
                    "orig_error": "hidden",
                    "message": text,
                }),
            ),
            Self::Metastore(error) if error.is_outage() || error.is_conflict() => (
                StatusCode::SERVICE_UNAVAILABLE,
                json!("The metastore is not available now. Try again in a moment."),
            ),
            Self::Metastore(_) | Self::Internal(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, json!("Internal Server Error"))
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, detail) = self.parts();
        if status.is_server_error() {
            tracing::error!(error = %self, "a request failed");
        }
        let mut response = (status, Json(json!({ "detail": detail }))).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<OperationError> for ApiError {
    fn from(error: OperationError) -> Self {
        use OperationError as E;
        let text = error.to_string();
        match error {
            E::Metastore(error) => Self::Metastore(error),
            E::DagNotFound(_)
            | E::RunNotFound { .. }
            | E::TaskNotFound { .. }
            | E::TaskInstanceNotFound { .. }
            | E::PoolNotFound(_) => Self::not_found(text),
            E::Refused(_) => Self::bad_request(text),
            E::Conflict(_) => Self::conflict(text),
            E::Exists(_) => Self::Unique(text),
            E::Unreadable { .. } => Self::Internal(text),
        }
    }
}

impl From<gust_ports::CipherError> for ApiError {
    fn from(error: gust_ports::CipherError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl AsMetastoreError for ApiError {
    fn as_metastore_error(&self) -> Option<&MetastoreError> {
        match self {
            Self::Metastore(error) => Some(error),
            _ => None,
        }
    }
}
