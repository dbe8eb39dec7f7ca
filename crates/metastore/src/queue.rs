//! The metastore's queued rows as the task queue, for workers beside a database and no broker.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt as _;
use gust_model::{
    Epoch, QueueName,
    message::{Addressed, WorkKind, WorkMessage},
};
use gust_ports::{
    Clock, Delivery, Metastore, MetastoreError, QueueError, Receipt, TaskQueue, Wake, Wakeups,
    metastore::TxMode,
};
use uuid::Uuid;

/// How long a row that was handed out here is not handed out again: time enough to claim it. Were it claimed twice,
/// the second claim would find nothing.
const HANDED_OUT_FOR: Duration = Duration::from_secs(10);

/// How often a receiver looks though nobody woke it.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A task queue that keeps nothing: its messages are the rows that the metastore has as queued, in the order in which
/// they should be claimed, and the callbacks that wait. Sending wakes the receivers.
pub struct MetastoreQueue {
    metastore: Arc<dyn Metastore>,
    wakeups: Arc<dyn Wakeups>,
    clock: Arc<dyn Clock>,
    /// The queue whose receivers get the callbacks.
    callback_queue: QueueName,
    /// What was handed out, and when on the monotonic clock.
    handed_out: Mutex<HashMap<(WorkKind, Uuid, Epoch), Duration>>,
}

impl fmt::Debug for MetastoreQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetastoreQueue").field("callback_queue", &self.callback_queue).finish_non_exhaustive()
    }
}

impl MetastoreQueue {
    /// A queue over a metastore. Callbacks go to the receivers of `callback_queue`.
    #[must_use]
    pub fn new(
        metastore: Arc<dyn Metastore>,
        wakeups: Arc<dyn Wakeups>,
        clock: Arc<dyn Clock>,
        callback_queue: QueueName,
    ) -> Self {
        Self { metastore, wakeups, clock, callback_queue, handed_out: Mutex::default() }
    }

    /// What waits in a queue and was not handed out just now, at most `limit`; it counts as handed out from here on.
    async fn take(&self, queue: &QueueName, limit: usize) -> Result<Vec<WorkMessage>, MetastoreError> {
        // Rows that were handed out and not claimed yet stand at the head; look past them.
        let ahead = self.forget_old();
        let wanted = u32::try_from(limit.saturating_add(ahead)).unwrap_or(u32::MAX);
        let mut tx = self.metastore.begin(TxMode::Read).await?;
        let mut waiting = Vec::new();
        if *queue == self.callback_queue {
            let callbacks = tx.callbacks_to_run(wanted).await?;
            waiting.extend(callbacks.iter().map(|callback| WorkMessage {
                kind: WorkKind::Callback,
                id: callback.id.0,
                epoch: callback.epoch,
            }));
        }
        let tries = tx.queued_task_instances(queue, wanted).await?;
        tx.rollback().await?;
        waiting.extend(tries.into_iter().map(|(id, epoch)| WorkMessage {
            kind: WorkKind::Try,
            id: id.0,
            epoch,
        }));
        let now = self.clock.monotonic();
        let mut handed_out = self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|message| !handed_out.contains_key(&(message.kind, message.id, message.epoch)));
        waiting.truncate(limit);
        handed_out.extend(waiting.iter().map(|message| ((message.kind, message.id, message.epoch), now)));
        Ok(waiting)
    }

    /// A row that is sent again was lost by whoever had it.
    fn forget(&self, messages: &[Addressed]) {
        let mut handed_out = self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        for Addressed { message, .. } in messages {
            handed_out.remove(&(message.kind, message.id, message.epoch));
        }
    }

    /// Forgets what was handed out long ago; says how much was not.
    fn forget_old(&self) -> usize {
        let now = self.clock.monotonic();
        let mut handed_out = self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        handed_out.retain(|_, since| now.saturating_sub(*since) < HANDED_OUT_FOR);
        handed_out.len()
    }
}

#[async_trait]
impl TaskQueue for MetastoreQueue {
    async fn send(&self, messages: &[Addressed]) -> Result<Vec<Addressed>, QueueError> {
        if !messages.is_empty() {
            self.forget(messages);
            self.wakeups.wake(Wake::Queued).await;
        }
        Ok(Vec::new())
    }

    async fn receive(
        &self,
        queue: &QueueName,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, QueueError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let deadline = self.clock.monotonic().saturating_add(wait);
        // Listening begins before the first look, so that nothing falls between the two.
        let mut wakes = self.wakeups.listen();
        loop {
            let found = self
                .take(queue, limit)
                .await
                .map_err(|error| QueueError::Unavailable { queue: queue.clone(), source: Box::new(error) })?;
            let left = deadline.saturating_sub(self.clock.monotonic());
            if !found.is_empty() || left.is_zero() {
                return Ok(found.into_iter().map(delivery).collect());
            }
            let nap = self.clock.sleep(left.min(POLL_INTERVAL));
            let woken = async {
                loop {
                    match wakes.next().await {
                        Some(Wake::Queued) => break,
                        Some(_) => {}
                        // Nobody will ever wake again; the nap ends the wait.
                        None => std::future::pending().await,
                    }
                }
            };
            tokio::select! {
                () = nap => {}
                () = woken => {}
            }
        }
    }

    /// The claim has taken the row out of the queue already.
    async fn delete(&self, _queue: &QueueName, _receipt: &Receipt) -> Result<(), QueueError> {
        Ok(())
    }
}

fn delivery(message: WorkMessage) -> Delivery {
    Delivery { message, receipt: Receipt(format!("{}/{}", message.id, message.epoch)) }
}
