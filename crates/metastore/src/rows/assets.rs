use async_trait::async_trait;
use gust_model::{
    AssetId, DagId, DagRunId, EventId, MapIndex,
    record::{Asset, AssetEvent, AssetReference, AssetReferenceKind, QueuedAssetEvent},
};
use gust_ports::{
    MetastoreError,
    metastore::{AssetEventFilter, AssetRows, Listing},
};

use super::{filters::Conditions, page_of, read_all};
use crate::{
    connection::{Row, SqlTx},
    dialect::{Statement, batches, json_of, values, word_of},
};

const ASSET: &str = "id, name, uri, group_name, extra, is_active";
const EVENT: &str = "e.id, e.asset_id, e.timestamp, e.extra, e.source_dag_id, e.source_run_id, e.source_task_id, \
     e.source_map_index, e.source_aliases, e.partition_key";
const REFERENCE: &str = "dag_id, kind, task_id, name, uri";

fn read_asset(row: &Row) -> Result<Asset, MetastoreError> {
    let r = row.of("asset");
    Ok(Asset {
        id: AssetId(r.uuid("id")?),
        name: r.text("name")?,
        uri: r.text("uri")?,
        group: r.text("group_name")?,
        extra: r.json("extra")?,
        is_active: r.flag("is_active")?,
    })
}

fn read_event(row: &Row) -> Result<AssetEvent, MetastoreError> {
    let r = row.of("asset_event");
    Ok(AssetEvent {
        id: EventId(r.uuid("id")?),
        asset_id: AssetId(r.uuid("asset_id")?),
        timestamp: r.time("timestamp")?,
        extra: r.json("extra")?,
        source_dag_id: r.text_or_null("source_dag_id")?,
        source_run_id: r.text_or_null("source_run_id")?,
        source_task_id: r.text_or_null("source_task_id")?,
        source_map_index: MapIndex(r.small("source_map_index")?),
        source_aliases: r.json("source_aliases")?,
        partition_key: r.text_or_null("partition_key")?,
    })
}

fn read_reference(row: &Row) -> Result<AssetReference, MetastoreError> {
    let r = row.of("asset_reference");
    Ok(AssetReference {
        dag_id: r.text("dag_id")?,
        kind: r.word("kind")?,
        task_id: r.text_or_null("task_id")?,
        name: r.text("name")?,
        uri: r.text_or_null("uri")?,
    })
}

#[async_trait]
impl AssetRows for SqlTx {
    async fn asset(
        &mut self,
        name: Option<&str>,
        uri: Option<&str>,
    ) -> Result<Option<Asset>, MetastoreError> {
        if name.is_none() && uri.is_none() {
            return Ok(None);
        }
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(ASSET).raw(" FROM asset");
        let mut conditions = Conditions::new(&mut statement);
        conditions.equals("name", name);
        conditions.equals("uri", uri);
        // A name that stood for several URIs means the one that DAGs still use.
        statement.raw(" ORDER BY is_active DESC, name, uri LIMIT 1");
        self.first(statement).await?.map(|row| read_asset(&row)).transpose()
    }

    async fn assets(&mut self, limit: u32, offset: u32) -> Result<Listing<Asset>, MetastoreError> {
        let matching = |statement: &mut Statement| {
            statement.raw("FROM asset");
        };
        page_of(self, ASSET, matching, "name, id", (limit, offset), read_asset).await
    }

    async fn put_asset(&mut self, asset: &Asset) -> Result<AssetId, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("INSERT INTO asset (").raw(ASSET).add(
            ") VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name, uri) DO UPDATE SET group_name = excluded.group_name, \
             extra = excluded.extra, is_active = excluded.is_active RETURNING id",
            values![asset.id, &asset.name, &asset.uri, &asset.group, &asset.extra, asset.is_active],
        );
        self.one(statement).await?.of("asset").uuid("id").map(AssetId)
    }

    async fn replace_asset_references(
        &mut self,
        dag_id: &DagId,
        references: &[AssetReference],
    ) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add("DELETE FROM asset_reference WHERE dag_id = ?", values![dag_id]);
        self.run(statement).await?;
        for references in batches(references) {
            let mut statement = self.statement();
            statement.raw("INSERT INTO asset_reference (").raw(REFERENCE).raw(") VALUES ");
            for (i, reference) in references.iter().enumerate() {
                statement.raw(if i == 0 { "" } else { ", " }).add(
                    "(?, ?, ?, ?, ?)",
                    values![
                        dag_id,
                        word_of(&reference.kind),
                        &reference.task_id,
                        &reference.name,
                        &reference.uri
                    ],
                );
            }
            self.run(statement).await?;
        }
        Ok(())
    }

    async fn asset_references(
        &mut self,
        name: &str,
        kind: Option<AssetReferenceKind>,
    ) -> Result<Vec<AssetReference>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(REFERENCE).add(" FROM asset_reference WHERE name = ?", values![name]);
        if let Some(kind) = kind {
            statement.add(" AND kind = ?", values![word_of(&kind)]);
        }
        statement.raw(" ORDER BY dag_id, id");
        let rows = self.all(statement).await?;
        read_all(&rows, read_reference)
    }

    async fn asset_references_of(&mut self, dag_id: &DagId) -> Result<Vec<AssetReference>, MetastoreError> {
        let mut statement = self.statement();
        statement
            .raw("SELECT ")
            .raw(REFERENCE)
            .add(" FROM asset_reference WHERE dag_id = ? ORDER BY id", values![dag_id]);
        let rows = self.all(statement).await?;
        read_all(&rows, read_reference)
    }

    async fn insert_asset_event(&mut self, event: &AssetEvent) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "INSERT INTO asset_event (id, asset_id, timestamp, extra, source_dag_id, source_run_id, \
             source_task_id, source_map_index, source_aliases, partition_key) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values![
                event.id,
                event.asset_id,
                event.timestamp,
                &event.extra,
                &event.source_dag_id,
                &event.source_run_id,
                &event.source_task_id,
                event.source_map_index,
                json_of(&event.source_aliases),
                &event.partition_key,
            ],
        );
        self.run(statement).await?;
        for alias in &event.source_aliases {
            let mut statement = self.statement();
            statement.add(
                "INSERT INTO asset_event_alias (alias, event_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
                values![alias, event.id],
            );
            self.run(statement).await?;
        }
        Ok(())
    }

    async fn asset_events(&mut self, filter: &AssetEventFilter) -> Result<Vec<AssetEvent>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(EVENT).raw(" FROM asset_event e");
        let mut conditions = Conditions::new(&mut statement);
        conditions.one_of("e.asset_id", filter.asset_ids.iter().copied());
        if let Some(alias) = &filter.alias {
            let through = "e.id IN (SELECT a.event_id FROM asset_event_alias a WHERE a.alias = ?)";
            conditions.and().add(through, values![alias]);
        }
        conditions.within("e.timestamp", &filter.timestamp);
        let direction = if filter.ascending { "" } else { " DESC" };
        statement.raw(" ORDER BY e.timestamp").raw(direction).raw(", e.id").raw(direction);
        if let Some(limit) = filter.limit {
            statement.add(" LIMIT ?", values![limit]);
        }
        let rows = self.all(statement).await?;
        read_all(&rows, read_event)
    }

    async fn put_queued_asset_event(&mut self, queued: &QueuedAssetEvent) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add(
            "INSERT INTO queued_asset_event (dag_id, asset_id, created_at) VALUES (?, ?, ?) \
             ON CONFLICT (dag_id, asset_id) DO NOTHING",
            values![&queued.dag_id, queued.asset_id, queued.created_at],
        );
        self.run(statement).await.map(drop)
    }

    async fn queued_asset_events(
        &mut self,
        dag_id: Option<&DagId>,
    ) -> Result<Vec<QueuedAssetEvent>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT dag_id, asset_id, created_at FROM queued_asset_event");
        Conditions::new(&mut statement).equals("dag_id", dag_id);
        statement.raw(" ORDER BY dag_id, asset_id");
        let rows = self.all(statement).await?;
        read_all(&rows, |row| {
            let r = row.of("queued_asset_event");
            Ok(QueuedAssetEvent {
                dag_id: r.text("dag_id")?,
                asset_id: AssetId(r.uuid("asset_id")?),
                created_at: r.time("created_at")?,
            })
        })
    }

    async fn delete_queued_asset_events(&mut self, dag_id: &DagId) -> Result<(), MetastoreError> {
        let mut statement = self.statement();
        statement.add("DELETE FROM queued_asset_event WHERE dag_id = ?", values![dag_id]);
        self.run(statement).await.map(drop)
    }

    async fn link_consumed_events(
        &mut self,
        dag_run_id: DagRunId,
        events: &[EventId],
    ) -> Result<(), MetastoreError> {
        for events in batches(events) {
            let mut statement = self.statement();
            statement.raw("INSERT INTO consumed_event (dag_run_id, event_id) VALUES ");
            for (i, event) in events.iter().enumerate() {
                statement.raw(if i == 0 { "" } else { ", " }).add("(?, ?)", values![dag_run_id, *event]);
            }
            statement.raw(" ON CONFLICT DO NOTHING");
            self.run(statement).await?;
        }
        Ok(())
    }

    async fn consumed_events(&mut self, dag_run_id: DagRunId) -> Result<Vec<AssetEvent>, MetastoreError> {
        let mut statement = self.statement();
        statement.raw("SELECT ").raw(EVENT).add(
            " FROM consumed_event c JOIN asset_event e ON e.id = c.event_id WHERE c.dag_run_id = ? \
             ORDER BY e.timestamp, e.id",
            values![dag_run_id],
        );
        let rows = self.all(statement).await?;
        read_all(&rows, read_event)
    }
}
