//! The records that the metastore keeps: plain data, one type a table, shared by the planner (as facts), the metastore
//! (as rows) and the web (as answers).

mod asset;
mod dag;
mod dag_run;
mod pool;
mod task_instance;
mod work;
mod xcom;

pub use asset::{Asset, AssetEvent, AssetReference, AssetReferenceKind, QueuedAssetEvent};
pub use dag::{DagRecord, DagVersion, ImportError, NextRun};
pub use dag_run::DagRun;
pub use pool::{DEFAULT_POOL, Pool, PoolUsage};
pub use task_instance::{Lease, TaskInstance, TaskInstanceTry, TaskTally, UpstreamTally};
pub use work::{Callback, CallbackState, Component, ComponentKind, TaskReschedule, Trigger};
pub use xcom::{ConnectionRecord, StateStoreScope, VariableRecord, XCom, XComKey};

/// A moment on the metastore's clock, in UTC, to the microsecond.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
