//! What travels on the task queue: the name of a durable, leased row, and nothing else (DESIGN §1, 2). Whoever can
//! write to the queue can therefore at most point at work that exists.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Epoch, QueueName};

/// The kinds of work that run user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// A try of a task instance.
    Try,
    /// A callback of a try or run that ended without a word.
    Callback,
}

/// A hint that a row of the metastore waits to be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkMessage {
    /// What kind of row it is.
    pub kind: WorkKind,
    /// The row's id.
    pub id: Uuid,
    /// The epoch under which it was handed out; a claim with an older one finds nothing.
    pub epoch: Epoch,
}

/// A message together with the logical queue that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Addressed {
    /// The logical queue.
    pub queue: QueueName,
    /// The message.
    pub message: WorkMessage,
}
