use std::sync::Arc;

use async_trait::async_trait;
use gust_ports::{Cipher, Metastore};
use gust_python_host::{
    Answers,
    messages::{ErrorType, FromTask, Reply},
};
use serde_json::json;
use tracing::{debug, warn};

use crate::{
    redact::Secrets,
    requests::{SecretDesk, refused},
};

/// Serves DAG files while they are parsed: Variables and Connections, as Airflow's DAG processor does
/// (`airflow/dag_processing/processor.py: DagFileProcessorProcess`). What a file logs is not kept.
pub struct ParseAnswers {
    desk: SecretDesk,
}

impl ParseAnswers {
    /// Answers from a metastore, whose secrets `cipher` opens.
    #[must_use]
    pub fn new(metastore: Arc<dyn Metastore>, cipher: Arc<dyn Cipher>) -> Self {
        // Nothing is stored of what a file says, so that nobody needs to know its secrets afterwards.
        let secrets = Arc::new(Secrets::new(usize::MAX, &[]));
        Self { desk: SecretDesk::new(metastore, cipher, secrets) }
    }
}

#[async_trait]
impl Answers for ParseAnswers {
    async fn answer(&self, request: &FromTask) -> Reply {
        if matches!(request, FromTask::MaskSecret(_)) {
            return Reply::Empty;
        }
        match self.desk.answer(request).await {
            Ok(Some(reply)) => reply,
            Ok(None) => refused(
                400,
                "unserved",
                format!("{} is not served while a DAG file is parsed", request.kind()),
            ),
            Err(error) => {
                warn!(%error, request = request.kind(), "a DAG file's request could not be served");
                Reply::error(ErrorType::ApiServerError, json!({"message": error.to_string()}))
            }
        }
    }

    fn log(&self, line: &[u8]) {
        // Unmasked, it must not reach the process's own log.
        debug!(bytes = line.len(), "a DAG file logged a line while it was parsed");
    }
}
