use async_trait::async_trait;
use gust_model::{
    AssetId, DagId, DagRunId, EventId,
    record::{Asset, AssetEvent, AssetReference, AssetReferenceKind, QueuedAssetEvent},
};

use super::{
    listing,
    table::key,
    tables::{BY_DAG, BY_NAME_AND_URI, BY_RUN, ConsumedEvent, ReferenceRow},
    transaction::Transaction,
};
use crate::metastore::{AssetEventFilter, AssetRows, Listing, MetastoreError};

#[async_trait]
impl AssetRows for Transaction {
    async fn asset(
        &mut self,
        name: Option<&str>,
        uri: Option<&str>,
    ) -> Result<Option<Asset>, MetastoreError> {
        self.statement("asset").await?;
        if name.is_none() && uri.is_none() {
            return Ok(None);
        }
        Ok(self.read(|view| {
            let named = view.rows::<Asset>().filter(|asset| {
                name.is_none_or(|name| asset.name == name) && uri.is_none_or(|uri| asset.uri == uri)
            });
            // One that current DAGs name goes before one that they did once.
            named.min_by_key(|asset| (!asset.is_active, asset.id)).cloned()
        }))
    }

    async fn assets(&mut self, limit: u32, offset: u32) -> Result<Listing<Asset>, MetastoreError> {
        self.statement("assets").await?;
        let mut assets: Vec<Asset> = self.read(|view| view.rows().cloned().collect());
        assets.sort_by(|a, b| (&a.name, &a.uri).cmp(&(&b.name, &b.uri)));
        Ok(listing::slice(assets, limit, offset))
    }

    async fn put_asset(&mut self, asset: &Asset) -> Result<AssetId, MetastoreError> {
        self.statement("put_asset").await?;
        loop {
            let found = self.read(|view| {
                let place = key![asset.name.as_str(), asset.uri.as_str()];
                view.find::<Asset>(BY_NAME_AND_URI, place).next().map(|found| found.id)
            });
            if let Some(id) = found {
                if self.lock_row::<Asset>(&key![id.0], |_| true).await?.is_some() {
                    self.update(Asset { id, ..asset.clone() }).await?;
                    return Ok(id);
                }
            } else if self.insert(asset.clone()).await? {
                return Ok(asset.id);
            } else if self.read(|view| view.get::<Asset>(&key![asset.id.0]).is_some()) {
                return self
                    .insert_new(asset.clone(), || format!("asset {}", asset.id.0))
                    .await
                    .map(|()| asset.id);
            }
        }
    }

    async fn replace_asset_references(
        &mut self,
        dag_id: &DagId,
        references: &[AssetReference],
    ) -> Result<(), MetastoreError> {
        self.statement("replace_asset_references").await?;
        self.delete_found::<ReferenceRow>(BY_DAG, key![dag_id.as_str()]).await?;
        for reference in references {
            let number = self.next_number();
            self.insert(ReferenceRow { number, reference: reference.clone() }).await?;
        }
        Ok(())
    }

    async fn asset_references(
        &mut self,
        name: &str,
        kind: Option<AssetReferenceKind>,
    ) -> Result<Vec<AssetReference>, MetastoreError> {
        self.statement("asset_references").await?;
        Ok(self.read(|view| {
            let references = view.rows::<ReferenceRow>().map(|row| &row.reference);
            let named = references
                .filter(|reference| reference.name == name && kind.is_none_or(|kind| reference.kind == kind));
            named.cloned().collect()
        }))
    }

    async fn asset_references_of(&mut self, dag_id: &DagId) -> Result<Vec<AssetReference>, MetastoreError> {
        self.statement("asset_references_of").await?;
        Ok(self.read(|view| {
            let rows = view.find::<ReferenceRow>(BY_DAG, key![dag_id.as_str()]);
            rows.map(|row| row.reference.clone()).collect()
        }))
    }

    async fn insert_asset_event(&mut self, event: &AssetEvent) -> Result<(), MetastoreError> {
        self.statement("insert_asset_event").await?;
        self.insert_new(event.clone(), || format!("asset event {}", event.id)).await
    }

    async fn asset_events(&mut self, filter: &AssetEventFilter) -> Result<Vec<AssetEvent>, MetastoreError> {
        self.statement("asset_events").await?;
        let mut events: Vec<AssetEvent> = self.read(|view| {
            let rows = view.rows::<AssetEvent>().filter(|event| {
                listing::is_among(&filter.asset_ids, &event.asset_id)
                    && filter.alias.as_ref().is_none_or(|alias| event.source_aliases.contains(alias))
                    && listing::is_within(&filter.timestamp, Some(event.timestamp))
            });
            rows.cloned().collect()
        });
        events.sort_by_key(|event| (event.timestamp, event.id));
        if !filter.ascending {
            events.reverse();
        }
        events.truncate(filter.limit.map_or(usize::MAX, |limit| limit as usize));
        Ok(events)
    }

    async fn put_queued_asset_event(&mut self, queued: &QueuedAssetEvent) -> Result<(), MetastoreError> {
        self.statement("put_queued_asset_event").await?;
        self.insert(queued.clone()).await?;
        Ok(())
    }

    async fn queued_asset_events(
        &mut self,
        dag_id: Option<&DagId>,
    ) -> Result<Vec<QueuedAssetEvent>, MetastoreError> {
        self.statement("queued_asset_events").await?;
        Ok(self.read(|view| {
            let rows = view.rows::<QueuedAssetEvent>();
            rows.filter(|queued| dag_id.is_none_or(|wanted| queued.dag_id == *wanted)).cloned().collect()
        }))
    }

    async fn delete_queued_asset_events(&mut self, dag_id: &DagId) -> Result<(), MetastoreError> {
        self.statement("delete_queued_asset_events").await?;
        self.delete_found::<QueuedAssetEvent>(BY_DAG, key![dag_id.as_str()]).await?;
        Ok(())
    }

    async fn link_consumed_events(
        &mut self,
        dag_run_id: DagRunId,
        events: &[EventId],
    ) -> Result<(), MetastoreError> {
        self.statement("link_consumed_events").await?;
        for event_id in events {
            self.insert(ConsumedEvent { dag_run_id, event_id: *event_id }).await?;
        }
        Ok(())
    }

    async fn consumed_events(&mut self, dag_run_id: DagRunId) -> Result<Vec<AssetEvent>, MetastoreError> {
        self.statement("consumed_events").await?;
        let mut events: Vec<AssetEvent> = self.read(|view| {
            let links = view.find::<ConsumedEvent>(BY_RUN, key![dag_run_id.0]);
            links.filter_map(|link| view.get::<AssetEvent>(&key![link.event_id.0]).cloned()).collect()
        });
        events.sort_by_key(|event| (event.timestamp, event.id));
        Ok(events)
    }
}
