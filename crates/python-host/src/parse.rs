//! Parsing DAG files in one child, file by file, with a time limit for each.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::debug;

use crate::control::Kind;
use crate::host::absolute;
use crate::messages::{FromTask, Reply};
use crate::{Answers, Child, Error, Event, Exit, Host, Request, Signal};

/// What to parse.
#[derive(Debug, Clone)]
pub struct ParseRequest {
    /// Folder of the bundle version.
    pub bundle_path: PathBuf,
    /// The bundle's name.
    pub bundle_name: String,
    /// Files relative to the folder; `None` for all that Airflow would find (`.airflowignore` honoured, and below
    /// `dags/` only where the bundle has that folder).
    pub files: Option<Vec<String>>,
    /// While finding files: take only those that mention both `dag` and `airflow` (`[core] dag_discovery_safe_mode`).
    pub safe_mode: bool,
    /// How long one file may take. Airflow's own limit (`[core] dagbag_import_timeout`, 30 s) ends an import in pure
    /// Python with a traceback, so this one should be longer.
    pub file_limit: Duration,
    /// Additions to the host's environment.
    pub env: BTreeMap<String, String>,
}

/// One DAG of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedDag {
    /// Its id.
    pub dag_id: String,
    /// Its serialized form, `{"__version": …, "dag": {…}}`, not yet brought into a canonical order.
    pub data: Value,
}

/// What one file gave.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedFile {
    /// The file, relative to the bundle.
    pub path: String,
    /// Its DAGs by id, without those that failed.
    pub dags: Vec<ParsedDag>,
    /// Error texts by file; more than one name only for an archive.
    pub import_errors: BTreeMap<String, String>,
    /// Warnings raised at import: `file:line: category: message`.
    pub warnings: Vec<String>,
    /// Time that importing and serializing took.
    pub duration: Duration,
}

/// A step of a parse.
#[derive(Debug, Clone, PartialEq)]
pub enum ParseEvent {
    /// The files that will be parsed, when none were named. The first event then.
    Found(Vec<String>),
    /// A file is done, one way or the other.
    Parsed(ParsedFile),
}

/// A parse under way. Dropping it kills the child.
pub struct Parse {
    host: Host,
    request: ParseRequest,
    answers: Arc<dyn Answers>,
    /// Files still to be done, the current one included; `None` until they are known.
    left: Option<VecDeque<String>>,
    current: Option<Current>,
    child: Option<Child>,
}

struct Current {
    path: String,
    started: Instant,
}

/// How long finding the files may take.
const FIND_LIMIT: Duration = Duration::from_mins(5);

#[derive(Deserialize)]
struct Found {
    paths: Vec<String>,
}

#[derive(Deserialize)]
struct Started {
    path: String,
}

#[derive(Deserialize)]
struct Done {
    path: String,
    dags: Vec<DagText>,
    import_errors: BTreeMap<String, String>,
    warnings: Vec<String>,
    duration_s: f64,
}

#[derive(Deserialize)]
struct DagText {
    dag_id: String,
    data: String,
}

impl Host {
    /// Begins to parse. Nothing runs before the first [`Parse::next`].
    #[must_use]
    pub fn parse(&self, request: ParseRequest, answers: Arc<dyn Answers>) -> Parse {
        let left = request.files.clone().map(VecDeque::from);
        Parse { host: self.clone(), request, answers, left, current: None, child: None }
    }
}

impl Parse {
    /// The next event; `None` when all files are done.
    ///
    /// A file that kills the parser or exceeds its time is reported as an import error, and the rest goes on in a fresh
    /// child.
    ///
    /// # Errors
    /// As [`Host::spawn_task`], and [`Error::ChildFailed`] where a parser breaks off outside any file.
    pub async fn next(&mut self) -> Result<Option<ParseEvent>, Error> {
        loop {
            if self.child.is_none() {
                if self.left.as_ref().is_some_and(VecDeque::is_empty) {
                    return Ok(None);
                }
                self.child = Some(self.start().await?);
            }
            let Some(child) = self.child.as_mut() else { continue };
            let deadline = self.current.as_ref().map_or_else(
                || Instant::now() + FIND_LIMIT,
                |current| current.started + self.request.file_limit,
            );
            let Ok(event) = tokio::time::timeout_at(deadline, child.next_event()).await else {
                // Dropping the child kills it with all below it.
                self.child = None;
                let limit = self.request.file_limit;
                let Some(current) = self.current.take() else {
                    return Err(Error::ChildFailed(format!(
                        "no answer within {} s outside any file",
                        FIND_LIMIT.as_secs()
                    )));
                };
                let text = format!(
                    "Parsing took longer than {:.0} s and was stopped. Move slow work out of the file's top level, or \
                     raise the limit for parsing one file.",
                    limit.as_secs_f64()
                );
                return Ok(Some(self.failed(&current.path, text, limit)));
            };
            if let Some(event) = self.take(event).await? {
                return Ok(Some(event));
            }
        }
    }

    async fn start(&self) -> Result<Child, Error> {
        let ParseRequest { bundle_path, bundle_name, safe_mode, env, .. } = &self.request;
        // Files that were found by the heuristic, and named by us after a restart, pass it again.
        let order = json!({
            "type": "GustParse",
            "bundle_path": absolute(bundle_path)?,
            "bundle_name": bundle_name,
            "safe_mode": safe_mode,
            "files": self.left,
        });
        self.host.spawn(Kind::Parser, bundle_path, bundle_name, "", env.clone(), Some(&order)).await
    }

    async fn take(&mut self, event: Option<Event>) -> Result<Option<ParseEvent>, Error> {
        match event {
            Some(Event::Request(request)) => self.serve(request).await,
            Some(Event::Log(line)) => {
                self.answers.log(&line);
                Ok(None)
            }
            Some(Event::Stdout(bytes) | Event::Stderr(bytes)) => {
                debug!(target: "gust_python_host::parser", "{}", String::from_utf8_lossy(&bytes));
                Ok(None)
            }
            Some(Event::Broken(problem)) => {
                self.child = None;
                Ok(Some(self.broke_off(&problem.to_string())?))
            }
            Some(Event::Exited(ended)) => {
                self.child = None;
                match ended.exit {
                    Exit::Code(0)
                        if self.current.is_none() && self.left.as_ref().is_none_or(VecDeque::is_empty) =>
                    {
                        self.left = Some(VecDeque::new());
                        Ok(None)
                    }
                    Exit::Code(code) => self.broke_off(&format!("it exited with code {code}")).map(Some),
                    Exit::Signal(signal) => {
                        let name = Signal::try_from(signal).map_or("an unknown signal", Signal::as_str);
                        self.broke_off(&format!("it was ended by {name} ({signal})")).map(Some)
                    }
                    Exit::Lost => self.broke_off("its zygote ended").map(Some),
                }
            }
            None => {
                self.child = None;
                Ok(None)
            }
        }
    }

    /// The parser is gone: the file it was at is to blame, if there is one.
    fn broke_off(&mut self, how: &str) -> Result<ParseEvent, Error> {
        let Some(current) = self.current.take() else {
            return Err(Error::ChildFailed(format!("the parser broke off outside any file: {how}")));
        };
        let text = format!("The process that imported this file ended before it was done: {how}.");
        Ok(self.failed(&current.path, text, current.started.elapsed()))
    }

    fn failed(&mut self, path: &str, text: String, duration: Duration) -> ParseEvent {
        self.forget(path);
        ParseEvent::Parsed(ParsedFile {
            path: path.to_owned(),
            dags: Vec::new(),
            import_errors: BTreeMap::from([(path.to_owned(), text)]),
            warnings: Vec::new(),
            duration,
        })
    }

    fn forget(&mut self, path: &str) {
        if let Some(left) = self.left.as_mut() {
            left.retain(|other| other != path);
        }
    }

    async fn serve(&mut self, request: Request) -> Result<Option<ParseEvent>, Error> {
        let Request { id, body, .. } = request;
        let (reply, event) = match body {
            FromTask::Unknown { kind, raw, .. } if kind == "GustFilesFound" => {
                let Found { paths } = read(raw)?;
                self.left = Some(paths.iter().cloned().collect());
                (Reply::Empty, Some(ParseEvent::Found(paths)))
            }
            FromTask::Unknown { kind, raw, .. } if kind == "GustFileStarted" => {
                let Started { path } = read(raw)?;
                self.current = Some(Current { path, started: Instant::now() });
                (Reply::Empty, None)
            }
            FromTask::Unknown { kind, raw, .. } if kind == "GustFileParsed" => {
                let file = parsed(read(raw)?);
                self.current = None;
                self.forget(&file.path);
                (Reply::Empty, Some(ParseEvent::Parsed(file)))
            }
            other => (self.answers.answer(&other).await, None),
        };
        if let Some(child) = &self.child
            && let Err(problem) = child.reply(id, reply).await
        {
            debug!(%problem, "the parser took no reply");
        }
        Ok(event)
    }
}

fn read<T: serde::de::DeserializeOwned>(raw: Value) -> Result<T, Error> {
    serde_json::from_value(raw).map_err(|problem| Error::MalformedFrame(problem.to_string()))
}

fn parsed(done: Done) -> ParsedFile {
    let mut import_errors = done.import_errors;
    let mut dags = Vec::with_capacity(done.dags.len());
    for DagText { dag_id, data } in done.dags {
        match serde_json::from_str(&data) {
            Ok(data) => dags.push(ParsedDag { dag_id, data }),
            Err(problem) => {
                let text = format!("The serialized DAG {dag_id} cannot be read: {problem}");
                import_errors.insert(done.path.clone(), text);
            }
        }
    }
    ParsedFile {
        path: done.path,
        dags,
        import_errors,
        warnings: done.warnings,
        duration: Duration::try_from_secs_f64(done.duration_s).unwrap_or_default(),
    }
}
