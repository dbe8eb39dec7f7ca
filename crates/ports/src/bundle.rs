use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use gust_model::{
    BundleName, BundleVersion,
    record::{NextRun, Timestamp},
};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::mpsc;

/// Why a bundle version is not there to be used.
#[derive(Debug, Error)]
pub enum BundleError {
    /// There is no such version.
    #[error("bundle {name} has no version {version}")]
    Missing {
        /// The bundle.
        name: BundleName,
        /// The version.
        version: BundleVersion,
    },
    /// The archive is not one that may be unpacked: what is wrong with it.
    #[error("version {version} of bundle {name} was refused: {reason}")]
    Refused {
        /// The bundle.
        name: BundleName,
        /// The version.
        version: BundleVersion,
        /// What is wrong.
        reason: String,
    },
    /// It may work later.
    #[error("version {version} of bundle {name} cannot be had now: {reason}")]
    Unavailable {
        /// The bundle.
        name: BundleName,
        /// The version.
        version: BundleVersion,
        /// Why.
        reason: String,
    },
}

/// Brings bundle versions to this machine.
#[async_trait]
pub trait BundleSource: Send + Sync {
    /// The folder in which a version lies unpacked, fetched first if it is not here yet. Nobody writes into it.
    async fn local_path(&self, name: &BundleName, version: &BundleVersion) -> Result<PathBuf, BundleError>;
}

/// What came of one DAG file.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedFile {
    /// The file, relative to the bundle.
    pub relative_path: String,
    /// Its DAGs in Airflow's serialized form.
    pub dags: Vec<Value>,
    /// What went wrong: one text an error, with its traceback.
    pub errors: Vec<String>,
    /// What Python warned of.
    pub warnings: Vec<String>,
    /// How long it took.
    pub duration: Duration,
}

/// What to parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseJob {
    /// The bundle.
    pub bundle_name: BundleName,
    /// Its version, if it has one.
    pub bundle_version: Option<BundleVersion>,
    /// Where it lies.
    pub bundle_path: PathBuf,
    /// Only these files, relative to the bundle; all that may hold DAGs if none is named.
    pub files: Vec<String>,
    /// How long one file may take.
    pub file_timeout: Duration,
}

/// A question to a timetable that is the user's own class.
#[derive(Debug, Clone, PartialEq)]
pub struct NextRunQuestion {
    /// The timetable in Airflow's serialized form.
    pub timetable: Value,
    /// The last run that it made.
    pub last: Option<NextRun>,
    /// No run starts before this.
    pub earliest: Option<Timestamp>,
    /// No run starts after this.
    pub latest: Option<Timestamp>,
    /// Whether missed runs are made up for.
    pub catchup: bool,
}

/// Why a bundle could not be parsed at all. What is wrong with one file is in its [`ParsedFile`].
#[derive(Debug, Error)]
#[error("the parser did not run: {0}")]
pub struct ParserError(pub String);

/// Turns DAG files into serialized DAGs: a Python child, or a work item for a function that has one.
#[async_trait]
pub trait DagParser: Send + Sync {
    /// Parses a bundle and sends what came of each file as soon as it is known. Returns the files that were looked at,
    /// those without DAGs included. It ends early, without error, when nobody receives any more.
    async fn parse(&self, job: &ParseJob, out: mpsc::Sender<ParsedFile>) -> Result<Vec<String>, ParserError>;

    /// Asks a bundle's own timetable for the run that it makes next; `None` if it makes none.
    async fn next_run(
        &self,
        job: &ParseJob,
        question: &NextRunQuestion,
    ) -> Result<Option<NextRun>, ParserError>;
}
