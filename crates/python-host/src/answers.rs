//! Serving the requests of children that answer questions of ours: parsers and triggerers.

use async_trait::async_trait;
use serde_json::json;

use crate::messages::{ErrorType, FromTask, Reply};

/// Answers what a parser or triggerer asks (Variables, Connections, XComs, states).
#[async_trait]
pub trait Answers: Send + Sync {
    /// The reply to one request. The child waits for it, and the file's time limit goes on.
    async fn answer(&self, request: &FromTask) -> Reply;

    /// One line of the child's structured log, JSON without the newline, UNMASKED.
    fn log(&self, line: &[u8]) {
        tracing::debug!(target: "gust_python_host::child", "{}", String::from_utf8_lossy(line));
    }
}

/// Knows nothing: every Variable and Connection is "not found", everything else refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAnswers;

#[async_trait]
impl Answers for NoAnswers {
    async fn answer(&self, request: &FromTask) -> Reply {
        match request {
            FromTask::GetVariable(asked) => {
                Reply::not_found(ErrorType::VariableNotFound, json!({"key": asked.key}))
            }
            FromTask::GetConnection(asked) => {
                Reply::not_found(ErrorType::ConnectionNotFound, json!({"conn_id": asked.conn_id}))
            }
            FromTask::MaskSecret(_) => Reply::Empty,
            other => Reply::error(
                ErrorType::GenericError,
                json!({"message": format!("{} is not served here", other.kind())}),
            ),
        }
    }
}
