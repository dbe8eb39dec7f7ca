//! What a task's success does to assets (`airflow/models/taskinstance.py: register_asset_changes_in_db`,
//! `airflow/assets/manager.py: register_asset_change`).

use std::collections::{BTreeMap, BTreeSet};

use gust_model::{
    AssetId, DagId, EventId,
    record::{Asset, AssetEvent, AssetReference, AssetReferenceKind, QueuedAssetEvent, Timestamp},
};
use gust_ports::{Tx, Wake};
use gust_python_host::messages::{AssetProfile, SucceedTask};
use serde_json::{Map, Value, json};
use tracing::warn;

use crate::{claim::Claimed, error::WorkerError};

/// An update to be noted.
struct Update {
    asset: Asset,
    extra: Value,
    partition_key: Option<String>,
    aliases: Vec<String>,
}

/// Notes the updates that a successful task made, within the transaction that ends it. Returns whom to wake.
pub(crate) async fn register_outlets(
    tx: &mut dyn Tx,
    claimed: &Claimed,
    said: &SucceedTask,
    now: Timestamp,
    fresh_event: &(dyn Fn() -> EventId + Sync),
    fresh_asset: &(dyn Fn() -> AssetId + Sync),
) -> Result<Vec<Wake>, WorkerError> {
    let outlets = said.task_outlets.as_deref().unwrap_or_default();
    let events = said.outlet_events.as_deref().unwrap_or_default();
    if outlets.is_empty() && events.is_empty() {
        return Ok(Vec::new());
    }
    let mut updates = named_updates(tx, claimed, outlets, events).await?;
    updates.extend(alias_updates(tx, claimed, outlets, events, fresh_asset).await?);
    let mut waiting: BTreeSet<DagId> = BTreeSet::new();
    for update in updates {
        waiting.extend(note(tx, claimed, update, now, fresh_event()).await?);
    }
    Ok(waiting.into_iter().map(|dag_id| Wake::Dag { dag_id }).collect())
}

fn text<'a>(event: &'a Map<String, Value>, path: &[&str]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(event.get(*first)?, |value, key| value.get(key))?.as_str()
}

/// Updates of the assets that the task names among its outlets, by themselves or by reference.
async fn named_updates(
    tx: &mut dyn Tx,
    claimed: &Claimed,
    outlets: &[AssetProfile],
    events: &[Map<String, Value>],
) -> Result<Vec<Update>, WorkerError> {
    let mut named: Vec<Asset> = Vec::new();
    for outlet in outlets {
        let (name, uri) = match outlet.r#type.as_str() {
            "Asset" => (outlet.name.as_deref(), outlet.uri.as_deref()),
            "AssetNameRef" => (outlet.name.as_deref(), None),
            "AssetUriRef" => (None, outlet.uri.as_deref()),
            _ => continue,
        };
        if name.is_none() && uri.is_none() {
            continue;
        }
        match tx.asset(name, uri).await? {
            Some(asset) if asset.is_active => {
                if !named.iter().any(|known| known.id == asset.id) {
                    named.push(asset);
                }
            }
            _ => warn!(?name, ?uri, "a task has an inactive asset among its outlets; no event is noted"),
        }
    }
    let mut updates = Vec::new();
    for asset in named {
        let mut payloads: Vec<(Value, Option<String>)> = events
            .iter()
            .filter(|event| !event.contains_key("source_alias_name"))
            .filter(|event| {
                text(event, &["dest_asset_key", "name"]) == Some(&asset.name)
                    && text(event, &["dest_asset_key", "uri"]) == Some(&asset.uri)
            })
            .map(|event| {
                let key = text(event, &["partition_key"]).map(str::to_owned);
                (event.get("extra").cloned().unwrap_or_else(|| json!({})), key)
            })
            .collect();
        if payloads.is_empty() {
            payloads.push((json!({}), None));
        }
        for (extra, partition_key) in payloads {
            updates.push(Update {
                asset: asset.clone(),
                extra,
                partition_key: partition_key.or_else(|| claimed.run.partition_key.clone()),
                aliases: Vec::new(),
            });
        }
    }
    Ok(updates)
}

/// Updates of assets that the task named through an alias while it ran. One that nobody knew yet is made.
async fn alias_updates(
    tx: &mut dyn Tx,
    claimed: &Claimed,
    outlets: &[AssetProfile],
    events: &[Map<String, Value>],
    fresh_asset: &(dyn Fn() -> AssetId + Sync),
) -> Result<Vec<Update>, WorkerError> {
    let aliases: BTreeSet<&str> = outlets
        .iter()
        .filter(|outlet| outlet.r#type == "AssetAlias")
        .filter_map(|outlet| outlet.name.as_deref())
        .collect();
    // One event an asset and payload, whichever aliases brought it. JSON texts serve as keys: serde_json sorts objects.
    let mut grouped: BTreeMap<(String, String, String, String), BTreeSet<String>> = BTreeMap::new();
    for event in events {
        let Some(alias) = text(event, &["source_alias_name"]).filter(|alias| aliases.contains(alias)) else {
            continue;
        };
        let (Some(name), Some(uri)) =
            (text(event, &["dest_asset_key", "name"]), text(event, &["dest_asset_key", "uri"]))
        else {
            continue;
        };
        let json_of = |key: &str| event.get(key).cloned().unwrap_or_else(|| json!({})).to_string();
        grouped
            .entry((name.to_owned(), uri.to_owned(), json_of("dest_asset_extra"), json_of("extra")))
            .or_default()
            .insert(alias.to_owned());
    }
    let mut updates = Vec::new();
    for ((name, uri, asset_extra, extra), aliases) in grouped {
        let parsed = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!({}));
        let known = tx.asset(Some(&name), Some(&uri)).await?;
        let asset = if let Some(asset) = known {
            asset
        } else {
            let mut asset = Asset {
                id: fresh_asset(),
                name,
                uri,
                group: "asset".to_owned(),
                extra: parsed(&asset_extra),
                is_active: false,
            };
            asset.id = tx.put_asset(&asset).await?;
            asset
        };
        updates.push(Update {
            asset,
            extra: parsed(&extra),
            partition_key: claimed.run.partition_key.clone(),
            aliases: aliases.into_iter().collect(),
        });
    }
    Ok(updates)
}

/// Writes the event and notes it for the DAGs whose schedules wait for it. Returns those.
async fn note(
    tx: &mut dyn Tx,
    claimed: &Claimed,
    update: Update,
    now: Timestamp,
    id: EventId,
) -> Result<Vec<DagId>, WorkerError> {
    let Update { asset, extra, partition_key, aliases } = update;
    let row = &claimed.task_instance;
    let event = AssetEvent {
        id,
        asset_id: asset.id,
        timestamp: now,
        extra,
        source_dag_id: Some(row.dag_id.clone()),
        source_run_id: Some(row.run_id.clone()),
        source_task_id: Some(row.task_id.clone()),
        source_map_index: row.map_index,
        source_aliases: aliases.clone(),
        partition_key,
    };
    tx.insert_asset_event(&event).await?;
    let mut references: Vec<AssetReference> =
        tx.asset_references(&asset.name, Some(AssetReferenceKind::Schedule)).await?;
    references.retain(|reference| reference.uri.as_ref().is_none_or(|uri| *uri == asset.uri));
    for alias in &aliases {
        let by_alias = tx.asset_references(alias, Some(AssetReferenceKind::Schedule)).await?;
        references.extend(by_alias.into_iter().filter(|reference| reference.uri.is_none()));
    }
    let waiting: BTreeSet<DagId> = references.into_iter().map(|reference| reference.dag_id).collect();
    let mut noted = Vec::new();
    for dag_id in waiting {
        if !tx.dag(&dag_id).await?.is_some_and(|dag| !dag.is_paused && !dag.is_stale) {
            continue;
        }
        let queued = QueuedAssetEvent { dag_id: dag_id.clone(), asset_id: asset.id, created_at: now };
        tx.put_queued_asset_event(&queued).await?;
        noted.push(dag_id);
    }
    Ok(noted)
}
