use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use gust_operations::OperationError;
use gust_ports::{MetastoreError, metastore::AsMetastoreError};
use maud::html;

use super::shell;

/// Why a page cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The address asks for something that makes no sense.
    #[error("{0}")]
    BadAddress(String),
    /// The metastore did not answer.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// A DAG's graph could not be read.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl PageError {
    pub(super) fn no_dag(dag_id: &str) -> Self {
        Self::NotFound(format!("There is no DAG {dag_id:?}."))
    }

    pub(super) fn no_run(dag_id: &str, run_id: &str) -> Self {
        Self::NotFound(format!("DAG {dag_id:?} has no run {run_id:?}."))
    }
}

impl AsMetastoreError for PageError {
    fn as_metastore_error(&self) -> Option<&MetastoreError> {
        match self {
            Self::Metastore(error) => Some(error),
            Self::Operation(error) => error.as_metastore_error(),
            Self::NotFound(_) | Self::BadAddress(_) => None,
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, title, text) = match &self {
            Self::NotFound(text) => (StatusCode::NOT_FOUND, "Not found", text.clone()),
            Self::BadAddress(text) => (StatusCode::BAD_REQUEST, "Bad request", text.clone()),
            // What failed inside is for the log; it may name hosts and statements.
            Self::Metastore(error) if error.is_outage() => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Unavailable",
                "The metastore does not answer now. Try again in a moment.".to_owned(),
            ),
            Self::Operation(OperationError::Unreadable { .. }) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "Unreadable", self.to_string())
            }
            Self::Metastore(_) | Self::Operation(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Error",
                "Something failed here; the server's log says what.".to_owned(),
            ),
        };
        if status.is_server_error() {
            tracing::error!(error = %self, "a page cannot be shown");
        }
        let body = html! {
            div.empty {
                h1 { (title) }
                p { (text) }
                p { a.button href="/" { "All DAGs" } }
            }
        };
        (status, shell::bare(title, &body)).into_response()
    }
}
