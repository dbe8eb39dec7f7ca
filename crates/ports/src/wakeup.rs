use std::pin::Pin;

use async_trait::async_trait;
use futures::Stream;
use gust_model::{DagId, RunId};
use serde::{Deserialize, Serialize};

/// Something changed that somebody may want to look at now. A wake-up carries no truth and may be lost: whoever waits
/// for one also looks after a while without one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wake {
    /// A run has something to advance, or its pages something to show.
    Run {
        /// The DAG.
        dag_id: DagId,
        /// The run.
        run_id: RunId,
        /// Whether a scheduler has to look; otherwise only pages do.
        plan: bool,
    },
    /// Slots were freed or added, or candidates appeared: admission has to look.
    Admission,
    /// Rows were admitted; a worker that reads the metastore as its queue has to look.
    Queued,
    /// A DAG changed: a version, paused or not, its next run.
    Dag {
        /// The DAG.
        dag_id: DagId,
    },
    /// A deferred task has a trigger to run.
    Trigger,
    /// A task instance was taken from its worker (cleared, marked): the worker has to look before its next renewal.
    Revoked {
        /// The task instance.
        task_instance_id: gust_model::TaskInstanceId,
    },
}

/// Wake-ups as they come.
pub type WakeStream = Pin<Box<dyn Stream<Item = Wake> + Send>>;

/// Tells others that something changed: a channel in one process, LISTEN/NOTIFY on PostgreSQL, a queue message in
/// Lambda.
#[async_trait]
pub trait Wakeups: Send + Sync {
    /// Wakes whoever listens. Called after the commit that it speaks of; failures are logged, not returned, since the
    /// sweep finds what a lost wake-up would have said.
    async fn wake(&self, wake: Wake);

    /// Listens from now on. A listener that is too slow loses the oldest ones.
    fn listen(&self) -> WakeStream;
}
