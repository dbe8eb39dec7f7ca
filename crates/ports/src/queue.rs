use std::time::Duration;

use async_trait::async_trait;
use gust_model::{
    QueueName,
    message::{Addressed, WorkMessage},
};
use thiserror::Error;

/// What names one delivery of a message to the queue that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt(pub String);

/// A message as it was delivered. It may be delivered again, whatever the receiver does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub message: WorkMessage,
    /// To be given to [`TaskQueue::delete`].
    pub receipt: Receipt,
}

/// Why the queue did not do what it was asked.
#[derive(Debug, Error)]
pub enum QueueError {
    /// It may work later.
    #[error("the task queue {queue} did not answer: {source}")]
    Unavailable {
        /// Which.
        queue: QueueName,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No such queue is configured.
    #[error("there is no task queue {queue}; known are {known}")]
    Unknown {
        /// Which was asked for.
        queue: QueueName,
        /// Those that are, joined by commas.
        known: String,
    },
}

/// Carries hints from the scheduler to workers. It may lose, repeat, delay and reorder: the metastore is the truth.
#[async_trait]
pub trait TaskQueue: Send + Sync {
    /// Sends messages. Returns those that were not taken, to be sent again later.
    async fn send(&self, messages: &[Addressed]) -> Result<Vec<Addressed>, QueueError>;

    /// Waits up to `wait` for messages of one queue and takes at most `limit`.
    async fn receive(
        &self,
        queue: &QueueName,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, QueueError>;

    /// Says that a delivery need not come again.
    async fn delete(&self, queue: &QueueName, receipt: &Receipt) -> Result<(), QueueError>;
}
