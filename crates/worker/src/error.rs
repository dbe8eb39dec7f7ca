use std::time::Duration;

use gust_model::TaskInstanceId;
use gust_ports::{
    BundleError, CipherError, MetastoreError, ObjectStoreError, QueueError, metastore::GraphError,
};
use thiserror::Error;

/// Why a worker could not do its work. What a task did wrong is the task's outcome, not one of these.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The metastore failed, for longer than an outage may last, or for good.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// The metastore was silent for too long.
    #[error("the metastore was silent for {} s: {last}", silent.as_secs())]
    Outage {
        /// How long.
        silent: Duration,
        /// The last error.
        last: MetastoreError,
    },
    /// The task instance is no longer this worker's: it was cleared, marked, reaped or given to another.
    #[error("task instance {0} is no longer this worker's")]
    Revoked(TaskInstanceId),
    /// The queue failed for good.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The DAG's code cannot be had.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The run names no bundle version, and neither does its DAG.
    #[error(
        "run {run} of DAG {dag} has no bundle version; parse the bundle again, so that its DAGs have one"
    )]
    NoBundleVersion {
        /// The DAG.
        dag: String,
        /// The run.
        run: String,
    },
    /// A row that another one names is not there.
    #[error("the metastore has no {what}")]
    Missing {
        /// What was looked for.
        what: String,
    },
    /// The stored DAG cannot be read.
    #[error("the stored DAG {dag} cannot be read: {reason}")]
    UnreadableDag {
        /// The DAG.
        dag: String,
        /// Why.
        reason: String,
    },
    /// The Python side failed.
    #[error(transparent)]
    Python(#[from] gust_python_host::Error),
    /// A log object could not be written.
    #[error(transparent)]
    Log(#[from] ObjectStoreError),
    /// A secret could not be opened.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// The worker listens on no queue.
    #[error("this worker listens on no queue; name at least one")]
    NoQueues,
    /// The stored callback is none that can be run.
    #[error("the stored callback is none that this version can run: {0}")]
    UnreadableCallback(String),
}

impl From<GraphError> for WorkerError {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::Metastore(error) => Self::Metastore(error),
            GraphError::Unreadable { dag_id, reason, .. } => {
                Self::UnreadableDag { dag: dag_id.to_string(), reason }
            }
        }
    }
}
