use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use gust_model::record::NextRun;
use gust_ports::{DagParser, NextRunQuestion, ParseJob, ParsedFile, ParserError};
use gust_python_host::{Answer, Answers, Host, Interval, Parse, ParseEvent, ParseRequest, Question, RunInfo};
use serde_json::Value;
use tokio::sync::mpsc;

/// Parses in Python children of this process, several at once, so that a slow file delays only those in its own part.
#[derive(Clone)]
pub struct ChildParser {
    host: Host,
    answers: Arc<dyn Answers>,
    safe_mode: bool,
    /// How many children parse at once.
    children: usize,
}

/// Into how many parts each child's share is cut: the more, the less a slow file holds up; the fewer, the fewer forks.
const PARTS_PER_CHILD: usize = 2;

impl ChildParser {
    /// Parses with `host`, in `children` at once; `answers` serves what DAG files ask for at import.
    pub fn new(host: Host, answers: Arc<dyn Answers>, safe_mode: bool, children: usize) -> Self {
        Self { host, answers, safe_mode, children: children.max(1) }
    }

    fn begin(&self, job: &ParseJob, files: Option<Vec<String>>) -> Parse {
        let request = ParseRequest {
            bundle_path: job.bundle_path.clone(),
            bundle_name: job.bundle_name.to_string(),
            files,
            safe_mode: self.safe_mode,
            file_limit: job.file_timeout,
            env: BTreeMap::new(),
        };
        self.host.parse(request, Arc::clone(&self.answers))
    }

    /// The files that may hold DAGs.
    async fn find(&self, job: &ParseJob) -> Result<Vec<String>, ParserError> {
        let mut parse = self.begin(job, None);
        match parse.next().await.map_err(|error| failed(&error))? {
            Some(ParseEvent::Found(files)) => Ok(files),
            Some(ParseEvent::Parsed(_)) | None => Ok(Vec::new()),
        }
    }

    /// Parses one part after another until none is left, or nobody listens.
    async fn work(
        &self,
        job: &ParseJob,
        parts: &Mutex<VecDeque<Vec<String>>>,
        out: &mpsc::Sender<ParsedFile>,
    ) -> Result<(), ParserError> {
        loop {
            let part = parts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(part) = part else { return Ok(()) };
            let mut parse = self.begin(job, Some(part));
            while let Some(event) = parse.next().await.map_err(|error| failed(&error))? {
                if let ParseEvent::Parsed(file) = event
                    && out.send(parsed(file)).await.is_err()
                {
                    return Ok(());
                }
            }
        }
    }
}

fn failed(error: &gust_python_host::Error) -> ParserError {
    ParserError(error.to_string())
}

#[async_trait]
impl DagParser for ChildParser {
    async fn parse(&self, job: &ParseJob, out: mpsc::Sender<ParsedFile>) -> Result<Vec<String>, ParserError> {
        let files = if job.files.is_empty() { self.find(job).await? } else { job.files.clone() };
        let size = files.len().div_ceil(self.children * PARTS_PER_CHILD).max(1);
        let parts = Mutex::new(files.chunks(size).map(<[String]>::to_vec).collect::<VecDeque<_>>());
        let workers = (0..self.children).map(|_| self.work(job, &parts, &out));
        futures::future::try_join_all(workers).await?;
        Ok(files)
    }

    async fn next_run(
        &self,
        job: &ParseJob,
        question: &NextRunQuestion,
    ) -> Result<Option<NextRun>, ParserError> {
        let question = Question::NextRun {
            timetable: question.timetable.clone(),
            last: question.last.as_ref().map(|last| RunInfo {
                run_after: last.run_after,
                data_interval: last
                    .data_interval_start
                    .zip(last.data_interval_end)
                    .map(|(start, end)| Interval { start, end }),
                partition_key: last.partition_key.clone(),
                partition_date: None,
            }),
            earliest: question.earliest,
            latest: question.latest,
            catchup: question.catchup,
        };
        let name = job.bundle_name.as_str();
        let answers = self
            .host
            .ask(&job.bundle_path, name, &[question], job.file_timeout)
            .await
            .map_err(|error| failed(&error))?;
        match answers.into_iter().next() {
            Some(Answer::NextRun(next)) => Ok(next.map(|next| NextRun {
                run_after: next.info.run_after,
                // A run's logical date is the start of its data interval (`airflow/timetables/base.py: DagRunInfo`).
                logical_date: next.info.data_interval.map(|interval| interval.start),
                data_interval_start: next.info.data_interval.map(|interval| interval.start),
                data_interval_end: next.info.data_interval.map(|interval| interval.end),
                partition_key: next.info.partition_key,
            })),
            Some(Answer::Failed(traceback)) => Err(ParserError(traceback)),
            other => Err(ParserError(format!("the answer fits no question: {other:?}"))),
        }
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
