use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::{Either, select};
use gust_model::{
    QueueName,
    message::{Addressed, WorkMessage},
};
use tokio::sync::Notify;

use crate::{Clock, Delivery, QueueError, Receipt, TaskQueue};

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<WorkMessage>,
    /// Delivered and not deleted: by receipt, with the moment (on the monotonic clock) at which it comes again.
    delivered: BTreeMap<u64, (Duration, WorkMessage)>,
}

impl Queue {
    /// Puts back what was delivered and not deleted in time.
    fn take_back(&mut self, now: Duration) {
        let is_due = |entry: &mut (Duration, WorkMessage)| entry.0 <= now;
        let late = self.delivered.extract_if(.., |_, entry| is_due(entry));
        self.waiting.extend(late.map(|(_, (_, message))| message));
    }
}

/// A queue in memory, first in, first out, to which any queue name is known. What is received and not deleted comes
/// again after a while, as with SQS.
pub struct MemoryQueue {
    clock: Arc<dyn Clock>,
    visibility_timeout: Duration,
    queues: Mutex<BTreeMap<QueueName, Queue>>,
    last_receipt: Mutex<u64>,
    arrival: Notify,
}

impl fmt::Debug for MemoryQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryQueue").field("queues", &*self.queues()).finish_non_exhaustive()
    }
}

impl MemoryQueue {
    /// An empty queue whose deliveries come again after `visibility_timeout` on `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, visibility_timeout: Duration) -> Self {
        Self {
            clock,
            visibility_timeout,
            queues: Mutex::default(),
            last_receipt: Mutex::default(),
            arrival: Notify::new(),
        }
    }

    fn queues(&self) -> MutexGuard<'_, BTreeMap<QueueName, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, name: &QueueName, limit: usize) -> Vec<Delivery> {
        let now = self.clock.monotonic();
        let mut queues = self.queues();
        let queue = queues.entry(name.clone()).or_default();
        queue.take_back(now);
        let mut last_receipt = self.last_receipt.lock().unwrap_or_else(PoisonError::into_inner);
        let count = limit.min(queue.waiting.len());
        let messages: Vec<WorkMessage> = queue.waiting.drain(..count).collect();
        messages
            .into_iter()
            .map(|message| {
                *last_receipt += 1;
                queue.delivered.insert(*last_receipt, (now + self.visibility_timeout, message));
                Delivery { message, receipt: Receipt(last_receipt.to_string()) }
            })
            .collect()
    }

    /// When something delivered comes again, on the monotonic clock.
    fn next_return(&self, name: &QueueName) -> Option<Duration> {
        self.queues().get(name)?.delivered.values().map(|(at, _)| *at).min()
    }
}

#[async_trait]
impl TaskQueue for MemoryQueue {
    async fn send(&self, messages: &[Addressed]) -> Result<Vec<Addressed>, QueueError> {
        {
            let mut queues = self.queues();
            for Addressed { queue, message } in messages {
                queues.entry(queue.clone()).or_default().waiting.push_back(*message);
            }
        }
        self.arrival.notify_waiters();
        Ok(Vec::new())
    }

    async fn receive(
        &self,
        queue: &QueueName,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, QueueError> {
        let deadline = self.clock.monotonic() + wait;
        loop {
            let mut arrival = Box::pin(self.arrival.notified());
            // Listening starts before looking, so that nothing arrives unseen in between.
            arrival.as_mut().enable();
            let deliveries = self.take(queue, limit);
            let now = self.clock.monotonic();
            if !deliveries.is_empty() || now >= deadline {
                return Ok(deliveries);
            }
            let until = self.next_return(queue).map_or(deadline, |at| at.min(deadline));
            match select(arrival, self.clock.sleep(until.saturating_sub(now))).await {
                Either::Left(_) | Either::Right(_) => {}
            }
        }
    }

    async fn delete(&self, queue: &QueueName, receipt: &Receipt) -> Result<(), QueueError> {
        if let Ok(number) = receipt.0.parse::<u64>()
            && let Some(queue) = self.queues().get_mut(queue)
        {
            queue.delivered.remove(&number);
        }
        Ok(())
    }
}
