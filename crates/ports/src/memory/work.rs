use std::{cmp::Reverse, time::Duration};

use async_trait::async_trait;
use gust_model::{
    AttemptId, CallbackId, Epoch, TaskInstanceId, TriggerId,
    record::{Callback, CallbackState, Component, Lease, Timestamp, Trigger},
};

use super::{
    table::{Row, key},
    transaction::Transaction,
};
use crate::metastore::{Hitl, LockWait, MetastoreError, WorkRows};

fn is_free(lease: Option<&Lease>, now: Timestamp) -> bool {
    lease.is_none_or(|lease| lease.expires_at <= now)
}

fn is_waiting(callback: &Callback, now: Timestamp) -> bool {
    match callback.state {
        CallbackState::Queued => true,
        CallbackState::Running => is_free(callback.lease.as_ref(), now),
        CallbackState::Success | CallbackState::Failed => false,
    }
}

fn is_of(lease: Option<&Lease>, attempt_id: AttemptId) -> bool {
    lease.is_some_and(|lease| lease.attempt_id == attempt_id)
}

#[async_trait]
impl WorkRows for Transaction {
    async fn insert_trigger(&mut self, trigger: &Trigger) -> Result<(), MetastoreError> {
        self.statement("insert_trigger").await?;
        self.insert_new(trigger.clone(), || format!("trigger {}", trigger.id)).await
    }

    async fn trigger(&mut self, id: TriggerId) -> Result<Option<Trigger>, MetastoreError> {
        self.statement("trigger").await?;
        Ok(self.read(|view| view.get(&key![id.0]).cloned()))
    }

    async fn delete_trigger(&mut self, id: TriggerId) -> Result<bool, MetastoreError> {
        self.statement("delete_trigger").await?;
        Ok(!self.delete::<Trigger>(vec![key![id.0]]).await?.is_empty())
    }

    async fn claim_triggers(
        &mut self,
        attempt_id: AttemptId,
        ttl: Duration,
        limit: u32,
    ) -> Result<Vec<Trigger>, MetastoreError> {
        self.statement("claim_triggers").await?;
        let now = self.clock_now();
        let keys = self.read(|view| {
            let mut free: Vec<&Trigger> =
                view.rows().filter(|trigger: &&Trigger| is_free(trigger.lease.as_ref(), now)).collect();
            free.sort_by_key(|trigger| (trigger.created_at, trigger.id));
            free.into_iter().map(Row::key).collect()
        });
        let free = self
            .lock_rows(keys, LockWait::SkipLocked, limit, |trigger: &Trigger| {
                is_free(trigger.lease.as_ref(), now)
            })
            .await?;
        let mut claimed = Vec::new();
        for trigger in free {
            let lease = Some(Lease { attempt_id, expires_at: self.clock_now() + ttl });
            let trigger = Trigger { epoch: trigger.epoch.next(), lease, ..trigger };
            self.update(trigger.clone()).await?;
            claimed.push(trigger);
        }
        Ok(claimed)
    }

    async fn renew_triggers(
        &mut self,
        attempt_id: AttemptId,
        ttl: Duration,
    ) -> Result<Vec<TriggerId>, MetastoreError> {
        self.statement("renew_triggers").await?;
        let is_ours = |trigger: &Trigger| is_of(trigger.lease.as_ref(), attempt_id);
        let keys = self.read(|view| view.keys_where(is_ours));
        let mut renewed = Vec::new();
        for trigger in self.lock_rows(keys, LockWait::Wait, u32::MAX, is_ours).await? {
            renewed.push(trigger.id);
            let lease = Some(Lease { attempt_id, expires_at: self.clock_now() + ttl });
            self.update(Trigger { lease, ..trigger }).await?;
        }
        Ok(renewed)
    }

    async fn insert_callback(&mut self, callback: &Callback) -> Result<(), MetastoreError> {
        self.statement("insert_callback").await?;
        self.insert_new(callback.clone(), || format!("callback {}", callback.id)).await
    }

    async fn callback(&mut self, id: CallbackId) -> Result<Option<Callback>, MetastoreError> {
        self.statement("callback").await?;
        Ok(self.read(|view| view.get(&key![id.0]).cloned()))
    }

    async fn callbacks_to_run(&mut self, limit: u32) -> Result<Vec<Callback>, MetastoreError> {
        self.statement("callbacks_to_run").await?;
        let now = self.clock_now();
        Ok(self.read(|view| {
            let mut waiting: Vec<&Callback> =
                view.rows().filter(|callback: &&Callback| is_waiting(callback, now)).collect();
            waiting.sort_by_key(|callback| (callback.created_at, callback.id));
            waiting.into_iter().take(limit as usize).cloned().collect()
        }))
    }

    async fn claim_callback(
        &mut self,
        id: CallbackId,
        epoch: Epoch,
        attempt_id: AttemptId,
        ttl: Duration,
    ) -> Result<Option<Callback>, MetastoreError> {
        self.statement("claim_callback").await?;
        let now = self.clock_now();
        let is_claimable = |callback: &Callback| callback.epoch == epoch && is_waiting(callback, now);
        let Some(callback) = self.lock_row(&key![id.0], is_claimable).await? else {
            return Ok(None);
        };
        let lease = Some(Lease { attempt_id, expires_at: self.clock_now() + ttl });
        let claimed =
            Callback { state: CallbackState::Running, epoch: callback.epoch.next(), lease, ..callback };
        self.update(claimed.clone()).await?;
        Ok(Some(claimed))
    }

    async fn finish_callback(
        &mut self,
        id: CallbackId,
        attempt_id: AttemptId,
        error: Option<&str>,
    ) -> Result<bool, MetastoreError> {
        self.statement("finish_callback").await?;
        let is_ours = |callback: &Callback| {
            callback.state == CallbackState::Running && is_of(callback.lease.as_ref(), attempt_id)
        };
        let Some(callback) = self.lock_row(&key![id.0], is_ours).await? else {
            return Ok(false);
        };
        let state = if error.is_some() { CallbackState::Failed } else { CallbackState::Success };
        self.update(Callback { state, lease: None, error: error.map(str::to_owned), ..callback }).await?;
        Ok(true)
    }

    async fn put_hitl(&mut self, hitl: &Hitl) -> Result<(), MetastoreError> {
        self.statement("put_hitl").await?;
        self.upsert(hitl.clone()).await
    }

    async fn hitl(&mut self, id: TaskInstanceId) -> Result<Option<Hitl>, MetastoreError> {
        self.statement("hitl").await?;
        Ok(self.read(|view| view.get(&key![id.0]).cloned()))
    }

    async fn put_component(&mut self, component: &Component) -> Result<(), MetastoreError> {
        self.statement("put_component").await?;
        self.upsert(component.clone()).await
    }

    async fn components(&mut self) -> Result<Vec<Component>, MetastoreError> {
        self.statement("components").await?;
        let mut components: Vec<Component> = self.read(|view| view.rows().cloned().collect());
        components.sort_by(|a, b| {
            (a.kind, Reverse(a.heartbeat_at), &a.name).cmp(&(b.kind, Reverse(b.heartbeat_at), &b.name))
        });
        Ok(components)
    }

    async fn forget_components(&mut self, before: Timestamp) -> Result<(), MetastoreError> {
        self.statement("forget_components").await?;
        self.delete_where(|component: &Component| component.heartbeat_at < before).await?;
        Ok(())
    }
}
