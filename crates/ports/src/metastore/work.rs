use std::time::Duration;

use async_trait::async_trait;
use gust_model::{
    AttemptId, CallbackId, Epoch, TaskInstanceId, TriggerId,
    record::{Callback, Component, Timestamp, Trigger},
};
use serde_json::Value;

use super::MetastoreError;

/// A question to a person that a task instance waits on (`airflow/models/hitl.py`).
#[derive(Debug, Clone, PartialEq)]
pub struct Hitl {
    /// The task instance.
    pub task_instance_id: TaskInstanceId,
    /// The question as the SDK sent it (`CreateHITLDetailPayload` without its ids).
    pub detail: Value,
    /// The answer, in the SDK's form, once given.
    pub response: Option<Value>,
    /// When it was asked.
    pub created_at: Timestamp,
}

/// Work that is not a try: triggers, callbacks, questions, and which processes live.
#[async_trait]
pub trait WorkRows: Send {
    /// Adds a trigger.
    async fn insert_trigger(&mut self, trigger: &Trigger) -> Result<(), MetastoreError>;

    /// A trigger.
    async fn trigger(&mut self, id: TriggerId) -> Result<Option<Trigger>, MetastoreError>;

    /// Removes a trigger; false if there was none.
    async fn delete_trigger(&mut self, id: TriggerId) -> Result<bool, MetastoreError>;

    /// Claims triggers that nobody holds, or whose holder's lease has expired on the database's clock, at most
    /// `limit`, each in its next epoch.
    async fn claim_triggers(
        &mut self,
        attempt_id: AttemptId,
        ttl: Duration,
        limit: u32,
    ) -> Result<Vec<Trigger>, MetastoreError>;

    /// Renews the leases of an attempt's triggers; returns those that still are its.
    async fn renew_triggers(
        &mut self,
        attempt_id: AttemptId,
        ttl: Duration,
    ) -> Result<Vec<TriggerId>, MetastoreError>;

    /// Adds a callback, queued.
    async fn insert_callback(&mut self, callback: &Callback) -> Result<(), MetastoreError>;

    /// A callback.
    async fn callback(&mut self, id: CallbackId) -> Result<Option<Callback>, MetastoreError>;

    /// Queued callbacks, and running ones whose lease has expired on the database's clock, the oldest first. No
    /// locks.
    async fn callbacks_to_run(&mut self, limit: u32) -> Result<Vec<Callback>, MetastoreError>;

    /// Claims a callback of this epoch that is queued or whose lease has expired; it moves to the next epoch.
    async fn claim_callback(
        &mut self,
        id: CallbackId,
        epoch: Epoch,
        attempt_id: AttemptId,
        ttl: Duration,
    ) -> Result<Option<Callback>, MetastoreError>;

    /// Ends a callback that is still this attempt's; an error text makes it failed. False if it is not.
    async fn finish_callback(
        &mut self,
        id: CallbackId,
        attempt_id: AttemptId,
        error: Option<&str>,
    ) -> Result<bool, MetastoreError>;

    /// Writes a question, new or not.
    async fn put_hitl(&mut self, hitl: &Hitl) -> Result<(), MetastoreError>;

    /// A task instance's question.
    async fn hitl(&mut self, id: TaskInstanceId) -> Result<Option<Hitl>, MetastoreError>;

    /// Says that a process is alive at `component.heartbeat_at`.
    async fn put_component(&mut self, component: &Component) -> Result<(), MetastoreError>;

    /// All processes that ever said so, the newest first within a kind.
    async fn components(&mut self) -> Result<Vec<Component>, MetastoreError>;

    /// Forgets processes not heard of since a moment.
    async fn forget_components(&mut self, before: Timestamp) -> Result<(), MetastoreError>;
}
