use gust_model::{
    EventId, MapIndex,
    record::{Asset, AssetEvent, AssetReferenceKind, QueuedAssetEvent},
};
use gust_ports::{
    Wake,
    metastore::{TxMode, transact},
};
use serde_json::Value;

use crate::{OperationError, Ports};

/// An update of an asset that a client reports.
#[derive(Debug, Clone, PartialEq)]
pub struct AssetUpdate {
    /// The asset.
    pub asset: Asset,
    /// What it has to say.
    pub extra: Value,
    /// The partition it is for.
    pub partition_key: Option<String>,
}

/// Records that a client updated an asset, for the DAGs whose schedules wait for it.
///
/// # Errors
/// [`OperationError::Metastore`].
pub async fn record_asset_event(ports: Ports<'_>, update: AssetUpdate) -> Result<AssetEvent, OperationError> {
    let id = EventId(ports.ids.fresh());
    let (event, wakes) = transact(ports.metastore, TxMode::Write, move |tx| {
        let update = update.clone();
        Box::pin(async move {
            let now = tx.now().await?;
            let event = AssetEvent {
                id,
                asset_id: update.asset.id,
                timestamp: now,
                extra: update.extra,
                source_dag_id: None,
                source_run_id: None,
                source_task_id: None,
                source_map_index: MapIndex::UNMAPPED,
                source_aliases: Vec::new(),
                partition_key: update.partition_key,
            };
            tx.insert_asset_event(&event).await?;
            let mut wakes = Vec::new();
            let waiting = tx.asset_references(&update.asset.name, Some(AssetReferenceKind::Schedule)).await?;
            for reference in waiting {
                if reference.uri.as_ref().is_some_and(|uri| *uri != update.asset.uri) {
                    continue;
                }
                let is_waiting =
                    tx.dag(&reference.dag_id).await?.is_some_and(|dag| !dag.is_paused && !dag.is_stale);
                if !is_waiting {
                    continue;
                }
                let queued = QueuedAssetEvent {
                    dag_id: reference.dag_id.clone(),
                    asset_id: update.asset.id,
                    created_at: now,
                };
                tx.put_queued_asset_event(&queued).await?;
                wakes.push(Wake::Dag { dag_id: reference.dag_id });
            }
            Ok::<_, OperationError>((event, wakes))
        })
    })
    .await?;
    ports.wake_all(wakes).await;
    Ok(event)
}
