use gust_model::{DagId, DagVersionId};
use gust_ports::{
    BundleError, MetastoreError, ObjectStoreError, ParserError, QueueError,
    metastore::{AsMetastoreError, GraphError},
};
use thiserror::Error;

/// Why a part of the scheduler could not do its work. What is wrong with one DAG, run or file is recorded with it and
/// stops nothing else.
#[derive(Debug, Error)]
pub enum SchedulerError {
    /// The metastore failed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The object store failed.
    #[error(transparent)]
    ObjectStore(#[from] ObjectStoreError),
    /// A bundle version could not be had.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle's origin could not be read: its name and why.
    #[error("bundle {0} cannot be taken in: {1}")]
    Origin(gust_model::BundleName, String),
    /// The parser did not run.
    #[error(transparent)]
    Parser(#[from] ParserError),
    /// A stored DAG cannot be read by this version of Gust.
    #[error("version {version} of DAG {dag_id} cannot be read: {reason}")]
    Graph {
        /// The DAG.
        dag_id: DagId,
        /// Its version.
        version: DagVersionId,
        /// What is wrong with it.
        reason: String,
    },
    /// A run names a DAG version that is not stored.
    #[error("version {version} of DAG {dag_id} is not in the metastore")]
    MissingVersion {
        /// The DAG.
        dag_id: DagId,
        /// The version.
        version: DagVersionId,
    },
}

impl SchedulerError {
    /// Whether nothing else would work either: the metastore is out of reach, or of another version. Any other error
    /// is of the one run, DAG or step that met it.
    #[must_use]
    pub fn concerns_all(&self) -> bool {
        matches!(
            self.as_metastore_error(),
            Some(MetastoreError::Unavailable(_) | MetastoreError::Schema { .. })
        )
    }
}

impl From<GraphError> for SchedulerError {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::Metastore(error) => Self::Metastore(error),
            GraphError::Unreadable { dag_id, version, reason } => Self::Graph { dag_id, version, reason },
        }
    }
}

impl AsMetastoreError for SchedulerError {
    fn as_metastore_error(&self) -> Option<&MetastoreError> {
        match self {
            Self::Metastore(error) => Some(error),
            _ => None,
        }
    }
}
