use async_trait::async_trait;
use gust_model::{
    AssetId, DagId, DagRunId, EventId,
    record::{Asset, AssetEvent, AssetReference, AssetReferenceKind, QueuedAssetEvent},
};

use super::{Listing, MetastoreError, TimeRange};

/// Which asset events. Everything given must hold; an empty list does not bind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssetEventFilter {
    /// Of these assets.
    pub asset_ids: Vec<AssetId>,
    /// That came through this alias.
    pub alias: Option<String>,
    /// By moment.
    pub timestamp: TimeRange,
    /// Whether the oldest come first.
    pub ascending: bool,
    /// At most so many.
    pub limit: Option<u32>,
}

/// Assets, their events, and who waits for them.
#[async_trait]
pub trait AssetRows: Send {
    /// An asset by name, by URI, or by both.
    async fn asset(&mut self, name: Option<&str>, uri: Option<&str>)
    -> Result<Option<Asset>, MetastoreError>;

    /// All assets, by name.
    async fn assets(&mut self, limit: u32, offset: u32) -> Result<Listing<Asset>, MetastoreError>;

    /// Writes an asset, new or not, found by name and URI; an existing one keeps its id. Returns the row's id.
    async fn put_asset(&mut self, asset: &Asset) -> Result<AssetId, MetastoreError>;

    /// Replaces a DAG's references to assets.
    async fn replace_asset_references(
        &mut self,
        dag_id: &DagId,
        references: &[AssetReference],
    ) -> Result<(), MetastoreError>;

    /// References by asset or alias name, of one kind if asked.
    async fn asset_references(
        &mut self,
        name: &str,
        kind: Option<AssetReferenceKind>,
    ) -> Result<Vec<AssetReference>, MetastoreError>;

    /// The references of one DAG.
    async fn asset_references_of(&mut self, dag_id: &DagId) -> Result<Vec<AssetReference>, MetastoreError>;

    /// Adds an event.
    async fn insert_asset_event(&mut self, event: &AssetEvent) -> Result<(), MetastoreError>;

    /// Events by filter, by moment.
    async fn asset_events(&mut self, filter: &AssetEventFilter) -> Result<Vec<AssetEvent>, MetastoreError>;

    /// Notes for a DAG that an asset was updated; one that is noted already stays.
    async fn put_queued_asset_event(&mut self, queued: &QueuedAssetEvent) -> Result<(), MetastoreError>;

    /// What is noted, for one DAG or for all.
    async fn queued_asset_events(
        &mut self,
        dag_id: Option<&DagId>,
    ) -> Result<Vec<QueuedAssetEvent>, MetastoreError>;

    /// Uses up what is noted for a DAG.
    async fn delete_queued_asset_events(&mut self, dag_id: &DagId) -> Result<(), MetastoreError>;

    /// Says which events a run was started by.
    async fn link_consumed_events(
        &mut self,
        dag_run_id: DagRunId,
        events: &[EventId],
    ) -> Result<(), MetastoreError>;

    /// The events that a run was started by, by moment.
    async fn consumed_events(&mut self, dag_run_id: DagRunId) -> Result<Vec<AssetEvent>, MetastoreError>;
}
