//! Assets and their events (`airflow/api_fastapi/execution_api/routes/{assets,asset_events}.py`).

use std::collections::{BTreeSet, HashMap};

use gust_model::{
    AssetId,
    dag::AssetLike,
    record::{Asset, AssetEvent},
};
use gust_ports::{
    Tx,
    metastore::{AssetEventFilter, TimeRange},
};
use gust_python_host::messages::{
    AssetEventResponse, AssetEventsResult, AssetProfile, AssetResponse, AssetsByAliasResult, ErrorType,
    GetAssetEventByAsset, GetAssetEventByAssetAlias, GetAssetsByAlias, InactiveAssetsResult, Reply, ToTask,
    ValidateInletsAndOutlets,
};
use serde_json::json;

use super::{Desk, refused};
use crate::{
    claim::object,
    dags::{graph_of, task_of},
    error::WorkerError,
};

/// Assets by row, of those asked for.
pub(crate) async fn by_id(
    tx: &mut dyn Tx,
    ids: impl Iterator<Item = AssetId>,
) -> Result<HashMap<AssetId, Asset>, WorkerError> {
    let wanted: BTreeSet<AssetId> = ids.collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let all = tx.assets(u32::MAX, 0).await?.items;
    Ok(all.into_iter().filter(|asset| wanted.contains(&asset.id)).map(|asset| (asset.id, asset)).collect())
}

fn wire(asset: &Asset) -> AssetResponse {
    AssetResponse {
        name: asset.name.clone(),
        uri: asset.uri.clone(),
        group: asset.group.clone(),
        extra: Some(object(&asset.extra)),
    }
}

/// The protocol numbers events; ours have ids that sort by time, whose head serves as well.
fn number(event: &AssetEvent) -> i64 {
    i64::try_from(event.id.0.as_u128() >> 65).unwrap_or(i64::MAX)
}

fn limit(asked: Option<i64>) -> Option<u32> {
    asked.filter(|&limit| limit > 0).and_then(|limit| u32::try_from(limit).ok())
}

impl Desk {
    pub(super) async fn get_asset(
        &self,
        name: Option<&str>,
        uri: Option<&str>,
    ) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        let found = tx.asset(name, uri).await?.filter(|asset| asset.is_active);
        if let Some(asset) = found {
            return Ok(ToTask::AssetResult(wire(&asset)).into());
        }
        let detail = name.map_or_else(|| json!({"uri": uri}), |name| json!({"name": name}));
        Ok(Reply::not_found(ErrorType::AssetNotFound, detail))
    }

    /// The assets that an alias stands for: those that it brought an event of.
    pub(super) async fn assets_by_alias(&self, m: &GetAssetsByAlias) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        let filter = AssetEventFilter { alias: Some(m.alias_name.clone()), ..AssetEventFilter::default() };
        let events = tx.asset_events(&filter).await?;
        let found = by_id(&mut *tx, events.iter().map(|event| event.asset_id)).await?;
        let mut assets: Vec<AssetResponse> =
            found.values().filter(|asset| asset.is_active).map(wire).collect();
        assets.sort_by(|a, b| (&a.name, &a.uri).cmp(&(&b.name, &b.uri)));
        Ok(ToTask::AssetsByAliasResult(AssetsByAliasResult { assets }).into())
    }

    pub(super) async fn events_by_asset(&self, m: &GetAssetEventByAsset) -> Result<Reply, WorkerError> {
        let (name, uri) =
            (m.name.as_deref().filter(|n| !n.is_empty()), m.uri.as_deref().filter(|u| !u.is_empty()));
        if name.is_none() && uri.is_none() {
            return Ok(refused(400, "Missing parameter", "name and uri cannot both be None"));
        }
        let mut tx = self.read().await?;
        let asset =
            tx.asset(name, uri).await?.filter(|asset| asset.is_active || (name.is_some() && uri.is_some()));
        let Some(asset) = asset else {
            return Ok(ToTask::AssetEventsResult(AssetEventsResult { asset_events: Vec::new() }).into());
        };
        let filter = AssetEventFilter {
            asset_ids: vec![asset.id],
            alias: None,
            timestamp: TimeRange { gte: m.after, lte: m.before, ..TimeRange::default() },
            ascending: m.ascending,
            limit: limit(m.limit),
        };
        self.events(&mut *tx, &filter).await
    }

    pub(super) async fn events_by_alias(&self, m: &GetAssetEventByAssetAlias) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        let filter = AssetEventFilter {
            asset_ids: Vec::new(),
            alias: Some(m.alias_name.clone()),
            timestamp: TimeRange { gte: m.after, lte: m.before, ..TimeRange::default() },
            ascending: m.ascending,
            limit: limit(m.limit),
        };
        self.events(&mut *tx, &filter).await
    }

    async fn events(&self, tx: &mut dyn Tx, filter: &AssetEventFilter) -> Result<Reply, WorkerError> {
        let events = tx.asset_events(filter).await?;
        let assets = by_id(tx, events.iter().map(|event| event.asset_id)).await?;
        let asset_events = events
            .into_iter()
            .filter_map(|event| {
                let asset = assets.get(&event.asset_id)?;
                Some(AssetEventResponse {
                    id: number(&event),
                    timestamp: event.timestamp,
                    extra: Some(object(&event.extra)),
                    asset: wire(asset),
                    created_dagruns: Vec::new(),
                    source_task_id: event.source_task_id.map(|id| id.to_string()),
                    source_dag_id: event.source_dag_id.map(|id| id.to_string()),
                    source_run_id: event.source_run_id.map(|id| id.to_string()),
                    source_map_index: Some(i64::from(event.source_map_index.0)),
                    partition_key: event.partition_key,
                })
            })
            .collect();
        Ok(ToTask::AssetEventsResult(AssetEventsResult { asset_events }).into())
    }

    /// Which of the task's assets no current DAG names
    /// (`airflow/api_fastapi/execution_api/routes/task_instances.py: validate_inlets_and_outlets`).
    pub(super) async fn validate_assets(&self, m: &ValidateInletsAndOutlets) -> Result<Reply, WorkerError> {
        let asker = match self.itself(m.ti_id) {
            Ok(asker) => asker,
            Err(reply) => return Ok(reply),
        };
        let mut tx = self.read().await?;
        let dag = graph_of(&self.dags, &mut *tx, asker.task_instance.dag_version_id).await?;
        let mut named = BTreeSet::new();
        if let Some(task) = task_of(&dag, asker.task_instance.task_id.as_str()) {
            for asset in task.inlets.iter().chain(&task.outlets) {
                if let AssetLike::Asset { name, uri, .. } = asset {
                    named.insert((name.as_str(), uri.as_str()));
                }
            }
        }
        let mut inactive = Vec::new();
        for (name, uri) in named {
            if !tx.asset(Some(name), Some(uri)).await?.is_some_and(|asset| asset.is_active) {
                inactive.push(AssetProfile {
                    name: Some(name.to_owned()),
                    uri: Some(uri.to_owned()),
                    r#type: "Asset".to_owned(),
                });
            }
        }
        Ok(ToTask::InactiveAssetsResult(InactiveAssetsResult { inactive_assets: Some(inactive) }).into())
    }
}
