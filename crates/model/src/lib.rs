//! The words of Gust: ids, states and their legal transitions, the DAG graph read from Airflow's serialized form, the
//! records that the metastore keeps, and the messages that the queue carries.
//!
//! This crate knows nothing of clocks, databases or networks; everything else may know it.

pub mod dag;
pub mod id;
pub mod message;
pub mod record;
pub mod sdk_value;
mod sensitive;
pub mod state;

pub use id::{
    AssetId, AttemptId, BackfillId, BundleName, BundleVersion, CallbackId, ConnectionId, DagId, DagRunId,
    DagVersionId, Epoch, EventId, MapIndex, PoolName, QueueName, RunId, TaskId, TaskInstanceId, TriggerId,
    VariableKey,
};
pub use sensitive::is_sensitive_name;
pub use state::{DagRunState, DagRunType, IllegalTransition, TaskInstanceState, TriggeredBy};
