use gust_model::{DagId, MapIndex, RunId, TaskId};
use gust_ports::{
    MetastoreError,
    metastore::{AsMetastoreError, GraphError},
};
use thiserror::Error;

/// Why something that was asked for was not done. The texts are Airflow's where it has one.
#[derive(Debug, Error)]
pub enum OperationError {
    /// The metastore did not do its part.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// There is no such DAG, or its file no longer holds it.
    #[error("Dag with dag_id: '{0}' not found")]
    DagNotFound(DagId),
    /// There is no such run.
    #[error("The DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found")]
    RunNotFound {
        /// The DAG.
        dag_id: DagId,
        /// The run.
        run_id: RunId,
    },
    /// The DAG has no such task.
    #[error("Task {task_id} not found in dag {dag_id}")]
    TaskNotFound {
        /// The DAG.
        dag_id: DagId,
        /// The task.
        task_id: TaskId,
    },
    /// The run has no such task instance.
    #[error(
        "The Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}`, task_id: `{task_id}` and map_index: \
         `{map_index}` was not found"
    )]
    TaskInstanceNotFound {
        /// The DAG.
        dag_id: DagId,
        /// The run.
        run_id: RunId,
        /// The task.
        task_id: TaskId,
        /// The index.
        map_index: MapIndex,
    },
    /// There is no such pool.
    #[error("The Pool with name: `{0}` was not found")]
    PoolNotFound(String),
    /// What was asked for makes no sense or is not allowed; the text says what would be right.
    #[error("{0}")]
    Refused(String),
    /// It stands in the way of something that is there: a run with the same id or logical date, a running task.
    #[error("{0}")]
    Conflict(String),
    /// A row that must be unique exists already.
    #[error("{0}")]
    Exists(String),
    /// The DAG's stored graph is gone or cannot be read.
    #[error("the graph of DAG {dag_id} cannot be read: {reason}")]
    Unreadable {
        /// The DAG.
        dag_id: DagId,
        /// Why.
        reason: String,
    },
}

impl From<GraphError> for OperationError {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::Metastore(error) => Self::Metastore(error),
            GraphError::Unreadable { dag_id, reason, .. } => Self::Unreadable { dag_id, reason },
        }
    }
}

impl AsMetastoreError for OperationError {
    fn as_metastore_error(&self) -> Option<&MetastoreError> {
        match self {
            Self::Metastore(error) => Some(error),
            _ => None,
        }
    }
}
