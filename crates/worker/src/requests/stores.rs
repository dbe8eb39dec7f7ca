//! State stores of tasks and assets, and questions to people.

use gust_model::{
    TaskInstanceId,
    record::{StateStoreScope, Timestamp},
};
use gust_ports::metastore::Hitl;
use gust_python_host::messages::{
    AssetStateStoreResult, CreateHITLDetailPayload, ErrorType, FromTask, GetHITLDetailResponse, Reply,
    TaskStateStoreResult, ToTask, UpdateHITLDetail,
};
use serde_json::{Value, json};

use super::{Desk, ok, refused};
use crate::error::WorkerError;

/// What is done to a store.
enum Deed<'a> {
    Get(&'a str),
    Set(&'a str, &'a Value, Option<Timestamp>),
    Delete(&'a str),
    Clear,
}

impl Desk {
    pub(super) async fn task_store(&self, body: &FromTask) -> Result<Reply, WorkerError> {
        let (ti_id, deed) = match body {
            FromTask::GetTaskStateStore(m) => (m.ti_id, Deed::Get(&m.key)),
            FromTask::SetTaskStateStore(m) => (m.ti_id, Deed::Set(&m.key, &m.value, m.expires_at)),
            FromTask::DeleteTaskStateStore(m) => (m.ti_id, Deed::Delete(&m.key)),
            FromTask::ClearTaskStateStore(m) => (m.ti_id, Deed::Clear),
            other => return Ok(refused(400, "unserved", format!("{} names no task store", other.kind()))),
        };
        let row = match self.itself(ti_id) {
            Ok(asker) => &asker.task_instance,
            Err(reply) => return Ok(reply),
        };
        let scope = StateStoreScope::Task(row.dag_run_id, row.task_id.clone(), row.map_index);
        let found = |value| ToTask::TaskStateStoreResult(TaskStateStoreResult { value }).into();
        self.do_to_store(&scope, deed, found, ErrorType::TaskStoreNotFound).await
    }

    pub(super) async fn asset_store(&self, body: &FromTask) -> Result<Reply, WorkerError> {
        let (name, uri, deed) = match body {
            FromTask::GetAssetStateStoreByName(m) => (Some(&m.name), None, Deed::Get(&m.key)),
            FromTask::GetAssetStateStoreByUri(m) => (None, Some(&m.uri), Deed::Get(&m.key)),
            FromTask::SetAssetStateStoreByName(m) => (Some(&m.name), None, Deed::Set(&m.key, &m.value, None)),
            FromTask::SetAssetStateStoreByUri(m) => (None, Some(&m.uri), Deed::Set(&m.key, &m.value, None)),
            FromTask::DeleteAssetStateStoreByName(m) => (Some(&m.name), None, Deed::Delete(&m.key)),
            FromTask::DeleteAssetStateStoreByUri(m) => (None, Some(&m.uri), Deed::Delete(&m.key)),
            FromTask::ClearAssetStateStoreByName(m) => (Some(&m.name), None, Deed::Clear),
            FromTask::ClearAssetStateStoreByUri(m) => (None, Some(&m.uri), Deed::Clear),
            other => return Ok(refused(400, "unserved", format!("{} names no asset store", other.kind()))),
        };
        let mut tx = self.read().await?;
        let asset = tx.asset(name.map(String::as_str), uri.map(String::as_str)).await?;
        drop(tx);
        // By name and by URI it is the same store.
        let Some(asset) = asset else {
            return Ok(refused(404, "not_found", "there is no such asset"));
        };
        let found = |value| ToTask::AssetStateStoreResult(AssetStateStoreResult { value }).into();
        let scope = StateStoreScope::Asset(asset.name);
        self.do_to_store(&scope, deed, found, ErrorType::AssetStoreNotFound).await
    }

    async fn do_to_store(
        &self,
        scope: &StateStoreScope,
        deed: Deed<'_>,
        found: impl FnOnce(Value) -> Reply,
        missing: ErrorType,
    ) -> Result<Reply, WorkerError> {
        if let Deed::Get(key) = deed {
            let value = self.read().await?.state_store_get(scope, key).await?;
            return Ok(match value {
                Some(value) => found(value),
                None => Reply::not_found(missing, json!({"key": key})),
            });
        }
        let mut tx = self.write().await?;
        match deed {
            Deed::Get(_) => {}
            Deed::Set(key, value, expires_at) => tx.state_store_put(scope, key, value, expires_at).await?,
            Deed::Delete(key) => tx.state_store_delete(scope, Some(key)).await?,
            Deed::Clear => tx.state_store_delete(scope, None).await?,
        }
        tx.commit().await?;
        Ok(ok())
    }

    /// Asks a person. A question that was asked before stays, without its answer
    /// (`airflow/api_fastapi/execution_api/routes/hitl.py: upsert_hitl_detail`).
    pub(super) async fn create_hitl(&self, m: &CreateHITLDetailPayload) -> Result<Reply, WorkerError> {
        let id = match self.itself(m.ti_id) {
            Ok(asker) => asker.task_instance.id,
            Err(reply) => return Ok(reply),
        };
        let mut tx = self.write().await?;
        let now = tx.now().await?;
        let hitl = match tx.hitl(id).await? {
            Some(asked) => Hitl { response: None, ..asked },
            None => Hitl { task_instance_id: id, detail: detail(m), response: None, created_at: now },
        };
        tx.put_hitl(&hitl).await?;
        tx.commit().await?;
        Ok(ToTask::HITLDetailRequestResult(m.clone()).into())
    }

    pub(super) async fn update_hitl(&self, m: &UpdateHITLDetail) -> Result<Reply, WorkerError> {
        let mut tx = self.write().await?;
        let Some(asked) = tx.hitl(TaskInstanceId(m.ti_id)).await? else { return Ok(no_question()) };
        if asked.response.is_some() {
            return Ok(refused(409, "already_exists", format!("the question of {} has its answer", m.ti_id)));
        }
        let now = tx.now().await?;
        let response = json!({
            "response_received": true,
            "responded_by_user": null,
            "responded_at": now,
            "chosen_options": m.chosen_options,
            "params_input": m.params_input.clone().unwrap_or_default(),
        });
        tx.put_hitl(&Hitl { response: Some(response.clone()), ..asked }).await?;
        tx.commit().await?;
        Ok(hitl_reply(response))
    }

    pub(super) async fn hitl_response(&self, m: &GetHITLDetailResponse) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        Ok(match tx.hitl(TaskInstanceId(m.ti_id)).await? {
            Some(asked) => hitl_reply(asked.response.unwrap_or_else(|| {
                json!({
                    "response_received": false,
                    "responded_by_user": null,
                    "responded_at": null,
                    "chosen_options": null,
                    "params_input": {},
                })
            })),
            None => no_question(),
        })
    }
}

fn no_question() -> Reply {
    refused(
        404,
        "not_found",
        "HITLDetail not found. This happens most likely due to clearing task instance before receiving response.",
    )
}

/// The answer's kind stands outside the schema of what a task may be told: only triggers ask for it.
fn hitl_reply(mut response: Value) -> Reply {
    response["type"] = "HITLDetailResponseResult".into();
    Reply::Body(ToTask::from_json(response))
}

fn detail(m: &CreateHITLDetailPayload) -> Value {
    json!({
        "options": m.options,
        "subject": m.subject,
        "body": m.body,
        "defaults": m.defaults,
        "multiple": m.multiple,
        "params": m.params.clone().unwrap_or_default(),
        "assigned_users": m.assigned_users,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_kept_without_its_ids() {
        let m = CreateHITLDetailPayload {
            ti_id: uuid::Uuid::nil(),
            options: vec!["yes".into()],
            subject: "Go?".into(),
            body: None,
            defaults: None,
            multiple: Some(false),
            params: None,
            assigned_users: None,
        };
        let detail = detail(&m);
        assert_eq!(detail["options"], json!(["yes"]));
        assert!(detail.get("ti_id").is_none() && detail.get("type").is_none());
    }
}
