use std::time::Duration;

use async_trait::async_trait;
use gust_model::{
    AttemptId, CallbackId, Epoch, TaskInstanceId, TriggerId,
    record::{Callback, Component, Lease, Timestamp, Trigger},
};
use gust_ports::{
    MetastoreError,
    metastore::{Hitl, WorkRows},
};

use super::{did_change, read_all};
use crate::{
    connection::{Row, SqlTx},
    dialect::{values, word_of},
};

const TRIGGER: &str =
    "id, task_instance_id, classpath, kwargs, created_at, epoch, lease_attempt_id, lease_expires_at";
const CALLBACK: &str = "id, state, bundle_name, bundle_version, relative_fileloc, dag_id, run_id, task_instance_id, \
     request, created_at, epoch, lease_attempt_id, lease_expires_at, error";

fn read_trigger(row: &Row) -> Result<Trigger, MetastoreError> {
    let r = row.of("task_trigger");
    Ok(Trigger {
        id: TriggerId(r.uuid("id")?),
        task_instance_id: TaskInstanceId(r.uuid("task_instance_id")?),
        classpath: r.text("classpath")?,
        kwargs: r.json("kwargs")?,
        created_at: r.time("created_at")?,
        epoch: Epoch(r.int("epoch")?),
        lease: r.lease()?,
    })
}

fn read_callback(row: &Row) -> Result<Callback, MetastoreError> {
    let r = row.of("callback");
    Ok(Callback {
        id: CallbackId(r.uuid("id")?),
        state: r.word("state")?,
        bundle_name: r.text("bundle_name")?,
        bundle_version: r.text_or_null("bundle_version")?,
        relative_fileloc: r.text("relative_fileloc")?,
        dag_id: r.text("dag_id")?,
        run_id: r.text("run_id")?,
        task_instance_id: r.uuid_or_null("task_instance_id")?.map(TaskInstanceId),
        request: r.json("request")?,
        created_at: r.time("created_at")?,
        epoch: Epoch(r.int("epoch")?),
        lease: r.lease()?,
        error: r.text_or_null("error")?,
    })
}

#[async_trait]
impl WorkRows for SqlTx {
    async fn insert_trigger(&mut self, trigger: &Trigger) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.raw("INSERT INTO task_trigger (").raw(TRIGGER).add(
            ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            values![
                trigger.id,
                trigger.task_instance_id,
                &trigger.classpath,
                &trigger.kwargs,
                trigger.created_at,
                trigger.epoch,
                trigger.lease.map(|lease: Lease| lease.attempt_id),
                trigger.lease.map(|lease| lease.expires_at),
            ],
        );
        self.run(statement).await.map(drop)
    }

    async fn trigger(&mut self, id: TriggerId) -> Result<Option<Trigger>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(TRIGGER).add(" FROM task_trigger WHERE id = ?", values![id]);
        self.first(statement).await?.map(|row| read_trigger(&row)).transpose()
    }

    async fn delete_trigger(&mut self, id: TriggerId) -> Result<bool, MetastoreError> {
        let mut statement = self.statement();
        statement.add("DELETE FROM task_trigger WHERE id = ?", values![id]);
        self.run(statement).await.map(did_change)
    }

    async fn claim_triggers(
        &mut self,
        attempt_id: AttemptId,
        ttl: Duration,
        limit: u32,
    ) -> Result<Vec<Trigger>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "WITH picked AS MATERIALIZED (SELECT id FROM task_trigger \
             WHERE lease_attempt_id IS NULL OR (lease_attempt_id IS NOT NULL AND lease_expires_at <= {now_once}) \
             ORDER BY created_at, id LIMIT ? {lock} {skip_locked}) \
             UPDATE task_trigger SET epoch = epoch + 1, lease_attempt_id = ?, lease_expires_at = ",
            values![limit, attempt_id],
        );
        statement.now_plus(ttl).raw(" WHERE id IN (SELECT id FROM picked) RETURNING ").raw(TRIGGER);
        let rows = self.all(statement).await?;
        let mut triggers = read_all(&rows, read_trigger)?;
        triggers.sort_by_key(|trigger| (trigger.created_at, trigger.id));
        Ok(triggers)
    }

    async fn renew_triggers(
        &mut self,
        attempt_id: AttemptId,
        ttl: Duration,
    ) -> Result<Vec<TriggerId>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("UPDATE task_trigger SET lease_expires_at = ").now_plus(ttl);
        statement.add(" WHERE lease_attempt_id = ? RETURNING id", values![attempt_id]);
        let rows = self.all(statement).await?;
        let mut ids = read_all(&rows, |row| row.of("task_trigger").uuid("id").map(TriggerId))?;
        ids.sort_unstable();
        Ok(ids)
    }

    async fn insert_callback(&mut self, callback: &Callback) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.raw("INSERT INTO callback (").raw(CALLBACK).add(
            ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values![
                callback.id,
                word_of(&callback.state),
                &callback.bundle_name,
                &callback.bundle_version,
                &callback.relative_fileloc,
                &callback.dag_id,
                &callback.run_id,
                callback.task_instance_id,
                &callback.request,
                callback.created_at,
                callback.epoch,
                callback.lease.map(|lease: Lease| lease.attempt_id),
                callback.lease.map(|lease| lease.expires_at),
                &callback.error,
            ],
        );
        self.run(statement).await.map(drop)
    }

    async fn callback(&mut self, id: CallbackId) -> Result<Option<Callback>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(CALLBACK).add(" FROM callback WHERE id = ?", values![id]);
        self.first(statement).await?.map(|row| read_callback(&row)).transpose()
    }

    async fn callbacks_to_run(&mut self, limit: u32) -> Result<Vec<Callback>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(CALLBACK).add(
            " FROM callback WHERE state IN ('queued', 'running') \
             AND (state = 'queued' OR lease_expires_at <= {now_once}) ORDER BY created_at, id LIMIT ?",
            values![limit],
        );
        let rows = self.all(statement).await?;
        read_all(&rows, read_callback)
    }

    async fn claim_callback(
        &mut self,
        id: CallbackId,
        epoch: Epoch,
        attempt_id: AttemptId,
        ttl: Duration,
    ) -> Result<Option<Callback>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "UPDATE callback SET state = 'running', epoch = epoch + 1, lease_attempt_id = ?, lease_expires_at = ",
            values![attempt_id],
        );
        statement.now_plus(ttl).add(
            " WHERE id = ? AND epoch = ? \
             AND (state = 'queued' OR (state = 'running' AND lease_expires_at <= {now})) RETURNING ",
            values![id, epoch],
        );
        statement.raw(CALLBACK);
        self.first(statement).await?.map(|row| read_callback(&row)).transpose()
    }

    async fn finish_callback(
        &mut self,
        id: CallbackId,
        attempt_id: AttemptId,
        error: Option<&str>,
    ) -> Result<bool, MetastoreError> {
        let state = if error.is_some() { "failed" } else { "success" };
        let mut statement = self.statement();
        statement.add(
            "UPDATE callback SET state = ?, error = ?, lease_attempt_id = NULL, lease_expires_at = NULL \
             WHERE id = ? AND state = 'running' AND lease_attempt_id = ?",
            values![state, error, id, attempt_id],
        );
        self.run(statement).await.map(did_change)
    }

    async fn put_hitl(&mut self, hitl: &Hitl) -> Result<(), MetastoreError> {
        let response = match &hitl.response {
            Some(response) => response.into(),
            None => crate::dialect::Value::Json(None),
        };
        let mut statement = self.statement();
        statement.add(
            "INSERT INTO hitl (task_instance_id, detail, response, created_at) VALUES (?, ?, ?, ?) \
             ON CONFLICT (task_instance_id) DO UPDATE SET detail = excluded.detail, \
             response = excluded.response, created_at = excluded.created_at",
            values![hitl.task_instance_id, &hitl.detail, response, hitl.created_at],
        );
        self.run(statement).await.map(drop)
    }

    async fn hitl(&mut self, id: TaskInstanceId) -> Result<Option<Hitl>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "SELECT task_instance_id, detail, response, created_at FROM hitl WHERE task_instance_id = ?",
            values![id],
        );
        let Some(row) = self.first(statement).await? else { return Ok(None) };
        let r = row.of("hitl");
        Ok(Some(Hitl {
            task_instance_id: TaskInstanceId(r.uuid("task_instance_id")?),
            detail: r.json("detail")?,
            response: r.json_or_null("response")?,
            created_at: r.time("created_at")?,
        }))
    }

    async fn put_component(&mut self, component: &Component) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "INSERT INTO component (kind, name, heartbeat_at, started_at) VALUES (?, ?, ?, ?) \
             ON CONFLICT (kind, name) DO UPDATE SET heartbeat_at = excluded.heartbeat_at, \
             started_at = excluded.started_at",
            values![word_of(&component.kind), &component.name, component.heartbeat_at, component.started_at],
        );
        self.run(statement).await.map(drop)
    }

    async fn components(&mut self) -> Result<Vec<Component>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT kind, name, heartbeat_at, started_at FROM component");
        let rows = self.all(statement).await?;
        let mut components = read_all(&rows, |row| {
            let r = row.of("component");
            Ok(Component {
                kind: r.word("kind")?,
                name: r.text("name")?,
                heartbeat_at: r.time("heartbeat_at")?,
                started_at: r.time("started_at")?,
            })
        })?;
        components.sort_by(|a, b| (a.kind, b.heartbeat_at, &a.name).cmp(&(b.kind, a.heartbeat_at, &b.name)));
        Ok(components)
    }

    async fn forget_components(&mut self, before: Timestamp) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add("DELETE FROM component WHERE heartbeat_at < ?", values![before]);
        self.run(statement).await.map(drop)
    }
}
