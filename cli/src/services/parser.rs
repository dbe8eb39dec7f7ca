use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use gust_ports::{DagParser, ParseJob, ParsedFile, ParserError};
use gust_python_host::{Answers, Host, ParseEvent, ParseRequest};
use serde_json::Value;
use tokio::sync::mpsc;

/// Parses in a Python child of this process.
pub struct ChildParser {
    host: Host,
    answers: Arc<dyn Answers>,
    safe_mode: bool,
}

impl ChildParser {
    /// Parses with `host`; `answers` serves what DAG files ask for at import.
    pub fn new(host: Host, answers: Arc<dyn Answers>, safe_mode: bool) -> Self {
        Self { host, answers, safe_mode }
    }
}

#[async_trait]
impl DagParser for ChildParser {
    async fn parse(&self, job: &ParseJob, out: mpsc::Sender<ParsedFile>) -> Result<Vec<String>, ParserError> {
        let request = ParseRequest {
            bundle_path: job.bundle_path.clone(),
            bundle_name: job.bundle_name.to_string(),
            files: (!job.files.is_empty()).then(|| job.files.clone()),
            safe_mode: self.safe_mode,
            file_limit: job.file_timeout,
            env: BTreeMap::new(),
        };
        let mut parse = self.host.parse(request, Arc::clone(&self.answers));
        let mut files = job.files.clone();
        while let Some(event) = parse.next().await.map_err(|error| ParserError(error.to_string()))? {
            match event {
                ParseEvent::Found(found) => files = found,
                ParseEvent::Parsed(file) => {
                    if out.send(parsed(file)).await.is_err() {
                        break;
                    }
                }
            }
        }
        Ok(files)
    }
}

fn parsed(file: gust_python_host::ParsedFile) -> ParsedFile {
    // The file is named first, so that an error within a module that it imports is still found under its own name.
    let errors = file
        .import_errors
        .into_iter()
        .map(|(place, error)| if place == file.path { error } else { format!("{place}:\n{error}") })
        .collect();
    ParsedFile {
        relative_path: file.path,
        dags: file.dags.into_iter().map(|dag| dag.data).collect::<Vec<Value>>(),
        errors,
        warnings: file.warnings,
        duration: file.duration,
    }
}
