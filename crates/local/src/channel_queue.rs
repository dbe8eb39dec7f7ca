use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
    time::Duration,
};

use async_trait::async_trait;
use gust_model::{
    QueueName,
    message::{Addressed, WorkMessage},
};
use gust_ports::{Delivery, QueueError, Receipt, TaskQueue};
use tokio::sync::Notify;

/// A queue within one process. What it holds is gone with the process; the sweep sends it again.
#[derive(Debug, Default)]
pub struct ChannelQueue {
    waiting: Mutex<BTreeMap<QueueName, VecDeque<WorkMessage>>>,
    arrived: Notify,
}

impl ChannelQueue {
    fn take(&self, queue: &QueueName, limit: usize) -> Vec<Delivery> {
        // A panic elsewhere cannot leave the map half changed: every change is one push or drain.
        let mut waiting = self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(messages) = waiting.get_mut(queue) else { return Vec::new() };
        let count = limit.min(messages.len());
        messages.drain(..count).map(|message| Delivery { message, receipt: Receipt(String::new()) }).collect()
    }
}

#[async_trait]
impl TaskQueue for ChannelQueue {
    async fn send(&self, messages: &[Addressed]) -> Result<Vec<Addressed>, QueueError> {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            for Addressed { queue, message } in messages {
                waiting.entry(queue.clone()).or_default().push_back(*message);
            }
        }
        self.arrived.notify_waiters();
        Ok(Vec::new())
    }

    async fn receive(
        &self,
        queue: &QueueName,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, QueueError> {
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        loop {
            // Listening begins before looking, so that what arrives in between is not missed.
            let arrived = self.arrived.notified();
            let taken = self.take(queue, limit);
            if !taken.is_empty() {
                return Ok(taken);
            }
            tokio::select! {
                () = arrived => {}
                () = &mut deadline => return Ok(Vec::new()),
            }
        }
    }

    async fn delete(&self, _queue: &QueueName, _receipt: &Receipt) -> Result<(), QueueError> {
        // A message left the queue when it was received.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gust_model::{Epoch, message::WorkKind};
    use uuid::Uuid;

    use super::*;

    fn message(epoch: i64) -> WorkMessage {
        WorkMessage { kind: WorkKind::Try, id: Uuid::nil(), epoch: Epoch(epoch) }
    }

    #[tokio::test]
    async fn a_waiting_receiver_gets_what_is_sent_to_its_queue_only() {
        let queue = Arc::new(ChannelQueue::default());
        let receiver = {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.receive(&"a".into(), 10, Duration::from_mins(10)).await })
        };
        let to = |name: &str, epoch| Addressed { queue: name.into(), message: message(epoch) };
        queue.send(&[to("b", 1)]).await.unwrap();
        queue.send(&[to("a", 2), to("a", 3)]).await.unwrap();
        let mut got: Vec<i64> = receiver.await.unwrap().unwrap().iter().map(|d| d.message.epoch.0).collect();
        // The receiver may have woken between pushes of one send; it never gets another queue's.
        got.extend(queue.take(&"a".into(), 10).iter().map(|d| d.message.epoch.0));
        assert_eq!(got, [2, 3]);
        assert_eq!(queue.receive(&"a".into(), 10, Duration::ZERO).await.unwrap(), []);
    }
}
