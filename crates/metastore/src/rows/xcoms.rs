use async_trait::async_trait;
use gust_model::{
    DagId, DagRunId, MapIndex, TaskId, TaskInstanceId,
    record::{StateStoreScope, Timestamp, XCom, XComKey},
};
use gust_ports::{
    MetastoreError,
    metastore::{Listing, XComFilter, XComRows},
};
use serde_json::Value;

use super::{did_change, filters::Conditions, page_of, read_all};
use crate::{
    connection::{Row, SqlTx},
    dialect::{Statement, batches, values},
};

const COLUMNS: &str = "x.dag_run_id, x.task_id, x.map_index, x.key, x.dag_id, x.run_id, x.value, x.mapped_length, \
     x.is_dag_result, x.timestamp";

fn read_xcom(row: &Row) -> Result<XCom, MetastoreError> {
    let r = row.of("xcom");
    Ok(XCom {
        key: XComKey {
            dag_run_id: DagRunId(r.uuid("dag_run_id")?),
            task_id: r.text("task_id")?,
            map_index: MapIndex(r.small("map_index")?),
            key: r.text("key")?,
        },
        dag_id: r.text("dag_id")?,
        run_id: r.text("run_id")?,
        value: r.json("value")?,
        mapped_length: r.small_or_null("mapped_length")?,
        is_dag_result: r.flag("is_dag_result")?,
        timestamp: r.time("timestamp")?,
    })
}

fn matching_xcoms(statement: &mut Statement, filter: &XComFilter) {
    statement.raw("FROM xcom x");
    let mut conditions = Conditions::new(statement);
    if let (Some(dag_id), Some(run_id)) = (&filter.dag_id, &filter.run_id) {
        // The table is kept by run; this finds it by the run's row.
        let run = values![dag_id, run_id];
        conditions.and().add("x.dag_run_id = (SELECT id FROM dag_run WHERE dag_id = ? AND run_id = ?)", run);
    }
    conditions.equals("x.dag_id", filter.dag_id.as_ref());
    conditions.equals("x.run_id", filter.run_id.as_ref());
    conditions.equals("x.task_id", filter.task_id.as_ref());
    conditions.equals("x.map_index", filter.map_index);
    conditions.equals("x.key", filter.key.as_ref());
}

impl SqlTx {
    async fn xcoms_where(
        &mut self,
        condition: impl FnOnce(&mut Statement),
    ) -> Result<Vec<XCom>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(COLUMNS).raw(" FROM xcom x WHERE ");
        condition(&mut statement);
        let rows = self.all(statement).await?;
        read_all(&rows, read_xcom)
    }
}

/// Which entry, or which entries, of a state store.
fn in_scope(statement: &mut Statement, scope: &StateStoreScope) {
    match scope {
        StateStoreScope::Task(dag_run_id, task_id, map_index) => statement.add(
            " task_state WHERE dag_run_id = ? AND task_id = ? AND map_index = ?",
            values![*dag_run_id, task_id, *map_index],
        ),
        StateStoreScope::Asset(asset) => statement.add(" asset_state WHERE asset = ?", values![asset]),
    };
}

#[async_trait]
impl XComRows for SqlTx {
    async fn xcom(&mut self, key: &XComKey) -> Result<Option<XCom>, MetastoreError> {
        let mut found = self
            .xcoms_where(|statement| {
                statement.add(
                    "x.dag_run_id = ? AND x.task_id = ? AND x.map_index = ? AND x.key = ?",
                    values![key.dag_run_id, &key.task_id, key.map_index, &key.key],
                );
            })
            .await?;
        Ok(found.pop())
    }

    async fn put_xcoms(&mut self, xcoms: &[XCom]) -> Result<(), MetastoreError> {
        // One statement may not write a row twice: of two values for one key, the later one is meant.
        let mut latest: Vec<&XCom> = Vec::with_capacity(xcoms.len());
        let mut seen = std::collections::BTreeSet::new();
        for xcom in xcoms.iter().rev() {
            if seen.insert(&xcom.key) {
                latest.push(xcom);
            }
        }
        latest.reverse();
        for xcoms in batches(&latest) {
            let mut statement = self.statement();
            statement.raw(
                "INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, mapped_length, \
                 is_dag_result, timestamp) VALUES ",
            );
            for (i, xcom) in xcoms.iter().enumerate() {
                statement.raw(if i == 0 { "" } else { ", " }).add(
                    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    values![
                        xcom.key.dag_run_id,
                        &xcom.key.task_id,
                        xcom.key.map_index,
                        &xcom.key.key,
                        &xcom.dag_id,
                        &xcom.run_id,
                        &xcom.value,
                        xcom.mapped_length,
                        xcom.is_dag_result,
                        xcom.timestamp,
                    ],
                );
            }
            statement.raw(
                " ON CONFLICT (dag_run_id, task_id, map_index, key) DO UPDATE SET value = excluded.value, \
                 mapped_length = excluded.mapped_length, is_dag_result = excluded.is_dag_result, \
                 timestamp = excluded.timestamp, dag_id = excluded.dag_id, run_id = excluded.run_id",
            );
            self.run(statement).await?;
        }
        Ok(())
    }

    async fn delete_xcom(&mut self, key: &XComKey) -> Result<bool, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "DELETE FROM xcom WHERE dag_run_id = ? AND task_id = ? AND map_index = ? AND key = ?",
            values![key.dag_run_id, &key.task_id, key.map_index, &key.key],
        );
        self.run(statement).await.map(did_change)
    }

    async fn clear_xcoms(
        &mut self,
        dag_run_id: DagRunId,
        task_id: &TaskId,
        map_index: MapIndex,
    ) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "DELETE FROM xcom WHERE dag_run_id = ? AND task_id = ? AND map_index = ?",
            values![dag_run_id, task_id, map_index],
        );
        self.run(statement).await.map(drop)
    }

    async fn xcom_sequence(
        &mut self,
        dag_run_id: DagRunId,
        task_id: &TaskId,
        key: &str,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<XCom>, MetastoreError> {
        self.xcoms_where(|statement| {
            statement.add(
                "x.dag_run_id = ? AND x.task_id = ? AND x.map_index >= 0 AND x.key = ? \
                 ORDER BY x.map_index LIMIT ? OFFSET ?",
                values![dag_run_id, task_id, key, limit, offset],
            );
        })
        .await
    }

    async fn xcom_count(
        &mut self,
        dag_run_id: DagRunId,
        task_id: &TaskId,
        key: &str,
    ) -> Result<u32, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "SELECT count(*) AS total FROM xcom \
             WHERE dag_run_id = ? AND task_id = ? AND map_index >= 0 AND key = ?",
            values![dag_run_id, task_id, key],
        );
        self.one(statement).await?.of("xcom").small("total")
    }

    async fn latest_xcom(
        &mut self,
        dag_id: &DagId,
        task_id: &TaskId,
        map_index: MapIndex,
        key: &str,
        logical_date: Timestamp,
    ) -> Result<Option<XCom>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(COLUMNS).add(
            " FROM dag_run r CROSS JOIN xcom x WHERE r.dag_id = ? AND r.logical_date <= ? \
             AND x.dag_run_id = r.id AND x.task_id = ? AND x.map_index = ? AND x.key = ? \
             ORDER BY r.logical_date DESC LIMIT 1",
            values![dag_id, logical_date, task_id, map_index, key],
        );
        self.first(statement).await?.map(|row| read_xcom(&row)).transpose()
    }

    async fn xcoms(
        &mut self,
        filter: &XComFilter,
        limit: u32,
        offset: u32,
    ) -> Result<Listing<XCom>, MetastoreError> {
        let order = "x.task_id, x.map_index, x.key, x.dag_run_id";
        let matching = |statement: &mut Statement| matching_xcoms(statement, filter);
        page_of(self, COLUMNS, matching, order, (limit, offset), read_xcom).await
    }

    async fn map_lengths(
        &mut self,
        dag_run_id: DagRunId,
        task_ids: &[TaskId],
    ) -> Result<Vec<(TaskId, MapIndex, u32)>, MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "SELECT task_id, map_index, mapped_length FROM xcom \
             WHERE dag_run_id = ? AND key = 'return_value' AND mapped_length IS NOT NULL AND task_id IN ",
            values![dag_run_id],
        );
        statement.text_set(task_ids.iter().map(TaskId::as_str)).raw(" ORDER BY task_id, map_index");
        let rows = self.all(statement).await?;
        read_all(&rows, |row| {
            let r = row.of("xcom");
            Ok((r.text("task_id")?, MapIndex(r.small("map_index")?), r.small("mapped_length")?))
        })
    }

    async fn put_rendered_fields(
        &mut self,
        id: TaskInstanceId,
        fields: &Value,
    ) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "INSERT INTO rendered_fields (task_instance_id, fields) VALUES (?, ?) \
             ON CONFLICT (task_instance_id) DO UPDATE SET fields = excluded.fields",
            values![id, fields],
        );
        self.run(statement).await.map(drop)
    }

    async fn rendered_fields(&mut self, id: TaskInstanceId) -> Result<Option<Value>, MetastoreError> {
        let mut statement = self.statement();
        statement.add("SELECT fields FROM rendered_fields WHERE task_instance_id = ?", values![id]);
        self.first(statement).await?.map(|row| row.of("rendered_fields").json("fields")).transpose()
    }

    async fn state_store_get(
        &mut self,
        scope: &StateStoreScope,
        key: &str,
    ) -> Result<Option<Value>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT value FROM");
        in_scope(&mut statement, scope);
        statement.add(" AND key = ? AND (expires_at IS NULL OR expires_at > {now})", values![key]);
        self.first(statement).await?.map(|row| row.of("state store").json("value")).transpose()
    }

    async fn state_store_put(
        &mut self,
        scope: &StateStoreScope,
        key: &str,
        value: &Value,
        expires_at: Option<Timestamp>,
    ) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        match scope {
            StateStoreScope::Task(dag_run_id, task_id, map_index) => statement.add(
                "INSERT INTO task_state (dag_run_id, task_id, map_index, key, value, expires_at) \
                 VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (dag_run_id, task_id, map_index, key)",
                values![*dag_run_id, task_id, *map_index, key, value, expires_at],
            ),
            StateStoreScope::Asset(asset) => statement.add(
                "INSERT INTO asset_state (asset, key, value, expires_at) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (asset, key)",
                values![asset, key, value, expires_at],
            ),
        };
        statement.raw(" DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at");
        self.run(statement).await.map(drop)
    }

    async fn state_store_delete(
        &mut self,
        scope: &StateStoreScope,
        key: Option<&str>,
    ) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.raw("DELETE FROM");
        in_scope(&mut statement, scope);
        if let Some(key) = key {
            statement.add(" AND key = ?", values![key]);
        }
        self.run(statement).await.map(drop)
    }
}
