use async_trait::async_trait;
use gust_model::{
    DagId, DagRunId, MapIndex, TaskId, TaskInstanceId,
    record::{DagRun, StateStoreScope, Timestamp, XCom, XComKey},
};
use serde_json::Value;

use super::{
    listing,
    table::{Key, key},
    tables::{BY_DAG, BY_RUN, Rendered, RunRow, StateEntry, scope_key},
    transaction::{Transaction, View},
};
use crate::metastore::{Listing, MetastoreError, XComFilter, XComRows};

/// The key under which Airflow stores what a task returned.
const RETURN_VALUE: &str = "return_value";

fn xcom_key(key: &XComKey) -> Key {
    key![key.dag_run_id.0, key.task_id.as_str(), key.map_index.0, key.key.as_str()]
}

/// The XComs of a task under a key at map indexes 0 and up, by index.
fn sequence<'v>(
    view: &'v View<'_>,
    dag_run_id: DagRunId,
    task_id: &'v TaskId,
    key: &'v str,
) -> impl Iterator<Item = &'v XCom> {
    view.find::<XCom>(BY_RUN, key![dag_run_id.0]).filter(move |xcom| {
        xcom.key.task_id == *task_id && xcom.key.key == key && xcom.key.map_index.is_mapped()
    })
}

fn state_key(scope: &StateStoreScope, name: &str) -> Key {
    let mut key = scope_key(scope);
    key.extend(key![name]);
    key
}

#[async_trait]
impl XComRows for Transaction {
    async fn xcom(&mut self, key: &XComKey) -> Result<Option<XCom>, MetastoreError> {
        self.statement("xcom").await?;
        Ok(self.read(|view| view.get(&xcom_key(key)).cloned()))
    }

    async fn put_xcoms(&mut self, xcoms: &[XCom]) -> Result<(), MetastoreError> {
        self.statement("put_xcoms").await?;
        for xcom in xcoms {
            self.upsert(xcom.clone()).await?;
        }
        Ok(())
    }

    async fn delete_xcom(&mut self, key: &XComKey) -> Result<bool, MetastoreError> {
        self.statement("delete_xcom").await?;
        Ok(!self.delete::<XCom>(vec![xcom_key(key)]).await?.is_empty())
    }

    async fn clear_xcoms(
        &mut self,
        dag_run_id: DagRunId,
        task_id: &TaskId,
        map_index: MapIndex,
    ) -> Result<(), MetastoreError> {
        self.statement("clear_xcoms").await?;
        let keys = self.read(|view| {
            view.find::<XCom>(BY_RUN, key![dag_run_id.0])
                .filter(|xcom| xcom.key.task_id == *task_id && xcom.key.map_index == map_index)
                .map(|xcom| xcom_key(&xcom.key))
                .collect()
        });
        self.delete::<XCom>(keys).await?;
        Ok(())
    }

    async fn xcom_sequence(
        &mut self,
        dag_run_id: DagRunId,
        task_id: &TaskId,
        key: &str,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<XCom>, MetastoreError> {
        self.statement("xcom_sequence").await?;
        Ok(self.read(|view| {
            let xcoms = sequence(view, dag_run_id, task_id, key);
            xcoms.skip(offset as usize).take(limit as usize).cloned().collect()
        }))
    }

    async fn xcom_count(
        &mut self,
        dag_run_id: DagRunId,
        task_id: &TaskId,
        key: &str,
    ) -> Result<u32, MetastoreError> {
        self.statement("xcom_count").await?;
        let count = self.read(|view| sequence(view, dag_run_id, task_id, key).count());
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    async fn latest_xcom(
        &mut self,
        dag_id: &DagId,
        task_id: &TaskId,
        map_index: MapIndex,
        key: &str,
        logical_date: Timestamp,
    ) -> Result<Option<XCom>, MetastoreError> {
        self.statement("latest_xcom").await?;
        Ok(self.read(|view| {
            let runs = view.find::<RunRow>(BY_DAG, key![dag_id.as_str()]).map(|row| &row.run);
            let mut runs: Vec<&DagRun> =
                runs.filter(|run| run.logical_date.is_some_and(|date| date <= logical_date)).collect();
            runs.sort_by_key(|run| run.logical_date);
            let mut newest_first = runs.into_iter().rev();
            newest_first.find_map(|run| {
                view.get::<XCom>(&key![run.id.0, task_id.as_str(), map_index.0, key]).cloned()
            })
        }))
    }

    async fn xcoms(
        &mut self,
        filter: &XComFilter,
        limit: u32,
        offset: u32,
    ) -> Result<Listing<XCom>, MetastoreError> {
        self.statement("xcoms").await?;
        let mut xcoms: Vec<XCom> = self.read(|view| {
            let rows = view.rows::<XCom>().filter(|xcom| {
                filter.dag_id.as_ref().is_none_or(|wanted| xcom.dag_id == *wanted)
                    && filter.run_id.as_ref().is_none_or(|wanted| xcom.run_id == *wanted)
                    && filter.task_id.as_ref().is_none_or(|wanted| xcom.key.task_id == *wanted)
                    && filter.map_index.is_none_or(|wanted| xcom.key.map_index == wanted)
                    && filter.key.as_ref().is_none_or(|wanted| xcom.key.key == *wanted)
            });
            rows.cloned().collect()
        });
        xcoms.sort_by(|a, b| {
            let order = |xcom: &XCom| {
                (xcom.key.task_id.clone(), xcom.key.map_index, xcom.key.key.clone(), xcom.key.dag_run_id)
            };
            order(a).cmp(&order(b))
        });
        Ok(listing::slice(xcoms, limit, offset))
    }

    async fn map_lengths(
        &mut self,
        dag_run_id: DagRunId,
        task_ids: &[TaskId],
    ) -> Result<Vec<(TaskId, MapIndex, u32)>, MetastoreError> {
        self.statement("map_lengths").await?;
        Ok(self.read(|view| {
            view.find::<XCom>(BY_RUN, key![dag_run_id.0])
                .filter(|xcom| xcom.key.key == RETURN_VALUE && task_ids.contains(&xcom.key.task_id))
                .filter_map(|xcom| Some((xcom.key.task_id.clone(), xcom.key.map_index, xcom.mapped_length?)))
                .collect()
        }))
    }

    async fn put_rendered_fields(
        &mut self,
        id: TaskInstanceId,
        fields: &Value,
    ) -> Result<(), MetastoreError> {
        self.statement("put_rendered_fields").await?;
        self.upsert(Rendered { id, fields: fields.clone() }).await
    }

    async fn rendered_fields(&mut self, id: TaskInstanceId) -> Result<Option<Value>, MetastoreError> {
        self.statement("rendered_fields").await?;
        Ok(self.read(|view| view.get(&key![id.0]).map(|row: &Rendered| row.fields.clone())))
    }

    async fn state_store_get(
        &mut self,
        scope: &StateStoreScope,
        key: &str,
    ) -> Result<Option<Value>, MetastoreError> {
        self.statement("state_store_get").await?;
        let now = self.clock_now();
        Ok(self.read(|view| {
            view.get(&state_key(scope, key))
                .filter(|entry: &&StateEntry| entry.expires_at.is_none_or(|end| end > now))
                .map(|entry| entry.value.clone())
        }))
    }

    async fn state_store_put(
        &mut self,
        scope: &StateStoreScope,
        key: &str,
        value: &Value,
        expires_at: Option<Timestamp>,
    ) -> Result<(), MetastoreError> {
        self.statement("state_store_put").await?;
        let entry =
            StateEntry { scope: scope.clone(), key: key.to_owned(), value: value.clone(), expires_at };
        self.upsert(entry).await
    }

    async fn state_store_delete(
        &mut self,
        scope: &StateStoreScope,
        key: Option<&str>,
    ) -> Result<(), MetastoreError> {
        self.statement("state_store_delete").await?;
        self.delete_where(|entry: &StateEntry| {
            entry.scope == *scope && key.is_none_or(|wanted| entry.key == wanted)
        })
        .await?;
        Ok(())
    }
}
