//! Assets and their events.

use std::collections::BTreeMap;

use axum::{Json, http::Method};
use chrono::DateTime;
use gust_model::{
    AssetId,
    record::{Asset, AssetEvent, AssetReferenceKind},
};
use gust_operations::AssetUpdate;
use gust_ports::{
    Tx,
    metastore::{AssetEventFilter, TxMode},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::lists::{PAGE, TEXT_LIST, bad_order, pattern, range, window, with_time_ranges};
use crate::{
    call::Call,
    endpoint::Endpoint,
    error::ApiError,
    inputs::{Field, Kind, TEXT, flag, int, optional, required},
    mask::redact,
    time::Moment,
};

/// How many rows are read at a time where all are looked through.
const BATCH: u32 = 500;

const LIST: &[Field] = &[
    int("limit", 0, PAGE),
    int("offset", 0, 0),
    optional("name_pattern", TEXT),
    optional("uri_pattern", TEXT),
    optional("dag_ids", TEXT_LIST),
    flag("only_active", true),
    optional("order_by", TEXT_LIST),
];
const EVENTS: &[Field] = with_time_ranges!(
    [
        int("limit", 0, PAGE),
        int("offset", 0, 0),
        optional("order_by", TEXT_LIST),
        optional("asset_id", Kind::Int(0)),
        optional("source_dag_id", TEXT),
        optional("source_task_id", TEXT),
        optional("source_run_id", TEXT),
        optional("source_map_index", Kind::Int(-1)),
    ],
    "timestamp_gte" "timestamp_gt" "timestamp_lte" "timestamp_lt",
);
const CREATE: &[Field] = &[
    required("asset_id", Kind::Int(0)),
    optional("partition_key", Kind::Text(250)),
    optional("extra", Kind::Object),
];

pub(super) fn endpoints() -> Vec<Endpoint> {
    let tag = "Asset";
    vec![
        Endpoint::new(Method::GET, "/api/v2/assets", "get_assets", list)
            .about(tag, "Lists assets.")
            .query(LIST)
            .answers::<AssetCollectionResponse>(),
        Endpoint::new(Method::GET, "/api/v2/assets/{asset_id}", "get_asset", get)
            .about(tag, "Gives an asset.")
            .answers::<AssetResponse>(),
        Endpoint::new(Method::GET, "/api/v2/assets/events", "get_asset_events", events)
            .about(tag, "Lists updates of assets.")
            .query(EVENTS)
            .answers::<AssetEventCollectionResponse>(),
        Endpoint::new(Method::POST, "/api/v2/assets/events", "create_asset_event", create_event)
            .about(tag, "Reports an update of an asset.")
            .body(CREATE)
            .answers::<AssetEventResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/upstreamAssetEvents",
            "get_upstream_asset_events",
            upstream_events,
        )
        .about(tag, "Lists the updates that a run was started by.")
        .answers::<AssetEventCollectionResponse>(),
    ]
}

/// A number for a row, as Airflow's clients want one: the random tail of its id, which fits a JSON number.
pub(super) fn number(id: Uuid) -> u64 {
    let bytes = id.into_bytes();
    bytes[10..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// When a row was made, as its id says.
fn made_at(id: Uuid) -> Moment {
    let at = id.get_timestamp().and_then(|at| {
        let (seconds, nanos) = at.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    });
    at.unwrap_or_default().into()
}

#[derive(Serialize, ToSchema)]
struct DagScheduleAssetReference {
    dag_id: String,
    created_at: Moment,
    updated_at: Moment,
}

#[derive(Serialize, ToSchema)]
struct TaskAssetReference {
    dag_id: String,
    task_id: String,
    created_at: Moment,
    updated_at: Moment,
}

#[derive(Serialize, ToSchema)]
struct LastAssetEventResponse {
    id: Option<u64>,
    timestamp: Option<Moment>,
}

/// `airflow/api_fastapi/core_api/datamodels/assets.py: AssetResponse`.
#[derive(Serialize, ToSchema)]
struct AssetResponse {
    id: u64,
    name: String,
    uri: String,
    group: String,
    extra: Option<Value>,
    created_at: Moment,
    updated_at: Moment,
    scheduled_dags: Vec<DagScheduleAssetReference>,
    producing_tasks: Vec<TaskAssetReference>,
    consuming_tasks: Vec<TaskAssetReference>,
    aliases: Vec<Value>,
    watchers: Vec<Value>,
    last_asset_event: Option<LastAssetEventResponse>,
}

#[derive(Serialize, ToSchema)]
struct AssetCollectionResponse {
    assets: Vec<AssetResponse>,
    total_entries: usize,
}

/// `airflow/api_fastapi/core_api/datamodels/assets.py: AssetEventResponse`.
#[derive(Serialize, ToSchema)]
struct AssetEventResponse {
    id: u64,
    asset_id: u64,
    uri: Option<String>,
    name: Option<String>,
    group: Option<String>,
    extra: Option<Value>,
    source_task_id: Option<String>,
    source_dag_id: Option<String>,
    source_run_id: Option<String>,
    source_map_index: i32,
    /// Which runs it started is not looked up here; a run names its own events.
    created_dagruns: Vec<Value>,
    timestamp: Moment,
    partition_key: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct AssetEventCollectionResponse {
    asset_events: Vec<AssetEventResponse>,
    total_entries: usize,
}

async fn all_assets(tx: &mut dyn Tx) -> Result<Vec<Asset>, ApiError> {
    let mut assets = Vec::new();
    loop {
        let offset = u32::try_from(assets.len()).unwrap_or(u32::MAX);
        let page = tx.assets(BATCH, offset).await?;
        let is_last = page.items.len() < BATCH as usize;
        assets.extend(page.items);
        if is_last {
            return Ok(assets);
        }
    }
}

async fn by_number(tx: &mut dyn Tx, wanted: u64) -> Result<Option<Asset>, ApiError> {
    Ok(all_assets(tx).await?.into_iter().find(|asset| number(asset.id.0) == wanted))
}

async fn show(tx: &mut dyn Tx, asset: &Asset) -> Result<AssetResponse, ApiError> {
    let at = made_at(asset.id.0);
    let mut shown = AssetResponse {
        id: number(asset.id.0),
        name: asset.name.clone(),
        uri: asset.uri.clone(),
        group: asset.group.clone(),
        extra: Some(redact(asset.extra.clone())).filter(|extra| !extra.is_null()),
        created_at: at,
        updated_at: at,
        scheduled_dags: Vec::new(),
        producing_tasks: Vec::new(),
        consuming_tasks: Vec::new(),
        aliases: Vec::new(),
        watchers: Vec::new(),
        last_asset_event: None,
    };
    for reference in tx.asset_references(&asset.name, None).await? {
        if reference.uri.as_ref().is_some_and(|uri| *uri != asset.uri) {
            continue;
        }
        let dag_id = reference.dag_id.to_string();
        let task = |task_id: Option<gust_model::TaskId>| TaskAssetReference {
            dag_id: dag_id.clone(),
            task_id: task_id.map(|id| id.to_string()).unwrap_or_default(),
            created_at: at,
            updated_at: at,
        };
        match reference.kind {
            AssetReferenceKind::Schedule => shown.scheduled_dags.push(DagScheduleAssetReference {
                dag_id,
                created_at: at,
                updated_at: at,
            }),
            AssetReferenceKind::Outlet => shown.producing_tasks.push(task(reference.task_id)),
            AssetReferenceKind::Inlet => shown.consuming_tasks.push(task(reference.task_id)),
        }
    }
    let newest =
        AssetEventFilter { asset_ids: vec![asset.id], limit: Some(1), ..AssetEventFilter::default() };
    shown.last_asset_event = tx.asset_events(&newest).await?.first().map(|event| LastAssetEventResponse {
        id: Some(number(event.id.0)),
        timestamp: Some(event.timestamp.into()),
    });
    Ok(shown)
}

async fn list(call: Call) -> Result<Json<AssetCollectionResponse>, ApiError> {
    let query = &call.query;
    let (limit, offset) = window(query, "limit", "offset");
    let name = pattern(query, "name_pattern")?.map(|text| text.to_lowercase());
    let uri = pattern(query, "uri_pattern")?.map(|text| text.to_lowercase());
    let dag_ids: Vec<&str> = query.texts("dag_ids").collect();
    let holds = |text: &Option<String>, value: &str| {
        text.as_ref().is_none_or(|text| value.to_lowercase().contains(text.as_str()))
    };
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let mut assets = all_assets(&mut *tx).await?;
    assets.retain(|asset| {
        (asset.is_active || !query.is_set("only_active"))
            && holds(&name, &asset.name)
            && holds(&uri, &asset.uri)
    });
    if !dag_ids.is_empty() {
        let mut kept = Vec::new();
        for asset in assets {
            let references = tx.asset_references(&asset.name, None).await?;
            if references.iter().any(|reference| dag_ids.contains(&reference.dag_id.as_str())) {
                kept.push(asset);
            }
        }
        assets = kept;
    }
    // Version 7 ids sort as they were made.
    assets.sort_by_key(|asset| asset.id);
    if let Some(order) = query.texts("order_by").next() {
        match order.trim_start_matches('-') {
            "id" | "created_at" | "updated_at" => {}
            "name" => assets.sort_by(|a, b| a.name.cmp(&b.name)),
            "uri" => assets.sort_by(|a, b| a.uri.cmp(&b.uri)),
            other => return Err(bad_order(other)),
        }
        if order.starts_with('-') {
            assets.reverse();
        }
    }
    let total_entries = assets.len();
    let mut shown = Vec::new();
    for asset in assets.iter().skip(offset as usize).take(limit as usize) {
        shown.push(show(&mut *tx, asset).await?);
    }
    Ok(Json(AssetCollectionResponse { assets: shown, total_entries }))
}

async fn get(call: Call) -> Result<Json<AssetResponse>, ApiError> {
    let id: u64 = call.number("asset_id")?;
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let asset = by_number(&mut *tx, id)
        .await?
        .ok_or_else(|| ApiError::not_found(format!("The Asset with ID: `{id}` was not found")))?;
    Ok(Json(show(&mut *tx, &asset).await?))
}

fn show_event(event: &AssetEvent, asset: Option<&Asset>) -> AssetEventResponse {
    AssetEventResponse {
        id: number(event.id.0),
        asset_id: number(event.asset_id.0),
        uri: asset.map(|asset| asset.uri.clone()),
        name: asset.map(|asset| asset.name.clone()),
        group: asset.map(|asset| asset.group.clone()),
        extra: Some(redact(event.extra.clone())).filter(|extra| !extra.is_null()),
        source_task_id: event.source_task_id.as_ref().map(ToString::to_string),
        source_dag_id: event.source_dag_id.as_ref().map(ToString::to_string),
        source_run_id: event.source_run_id.as_ref().map(ToString::to_string),
        source_map_index: event.source_map_index.0,
        created_dagruns: Vec::new(),
        timestamp: event.timestamp.into(),
        partition_key: event.partition_key.clone(),
    }
}

async fn assets_by_id(tx: &mut dyn Tx) -> Result<BTreeMap<AssetId, Asset>, ApiError> {
    Ok(all_assets(tx).await?.into_iter().map(|asset| (asset.id, asset)).collect())
}

async fn events(call: Call) -> Result<Json<AssetEventCollectionResponse>, ApiError> {
    let query = &call.query;
    let (limit, offset) = window(query, "limit", "offset");
    let order = query.texts("order_by").next().unwrap_or("timestamp");
    if !matches!(order.trim_start_matches('-'), "timestamp" | "id") {
        return Err(bad_order(order.trim_start_matches('-')));
    }
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let assets = assets_by_id(&mut *tx).await?;
    let mut asset_ids = Vec::new();
    if let Some(wanted) = query.int("asset_id").and_then(|id| u64::try_from(id).ok()) {
        asset_ids.extend(assets.keys().copied().filter(|id| number(id.0) == wanted));
        if asset_ids.is_empty() {
            return Ok(Json(AssetEventCollectionResponse { asset_events: Vec::new(), total_entries: 0 }));
        }
    }
    let filter = AssetEventFilter {
        asset_ids,
        timestamp: range(query, "timestamp"),
        ascending: !order.starts_with('-'),
        ..AssetEventFilter::default()
    };
    let mut found = tx.asset_events(&filter).await?;
    let is = |wanted: &str, value: Option<&str>| query.text(wanted).is_none_or(|text| value == Some(text));
    found.retain(|event| {
        is("source_dag_id", event.source_dag_id.as_ref().map(AsRef::as_ref))
            && is("source_task_id", event.source_task_id.as_ref().map(AsRef::as_ref))
            && is("source_run_id", event.source_run_id.as_ref().map(AsRef::as_ref))
            && query.int("source_map_index").is_none_or(|index| i64::from(event.source_map_index.0) == index)
    });
    let total_entries = found.len();
    let asset_events = found
        .iter()
        .skip(offset as usize)
        .take(limit as usize)
        .map(|event| show_event(event, assets.get(&event.asset_id)))
        .collect();
    Ok(Json(AssetEventCollectionResponse { asset_events, total_entries }))
}

async fn upstream_events(call: Call) -> Result<Json<AssetEventCollectionResponse>, ApiError> {
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    let run = super::dag_runs::run_or_404(&mut *tx, &call.dag_id(), &call.run_id()).await?;
    let assets = assets_by_id(&mut *tx).await?;
    let found = tx.consumed_events(run.id).await?;
    let asset_events: Vec<_> =
        found.iter().map(|event| show_event(event, assets.get(&event.asset_id))).collect();
    Ok(Json(AssetEventCollectionResponse { total_entries: asset_events.len(), asset_events }))
}

async fn create_event(call: Call) -> Result<Json<AssetEventResponse>, ApiError> {
    let id = call.body.int("asset_id").and_then(|id| u64::try_from(id).ok()).unwrap_or_default();
    let asset = {
        let mut tx = call.state.metastore.begin(TxMode::Read).await?;
        by_number(&mut *tx, id).await?
    };
    let asset = asset.ok_or_else(|| ApiError::not_found(format!("Asset with ID: `{id}` was not found")))?;
    let mut extra =
        call.body.value("extra").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    if let Value::Object(fields) = &mut extra {
        fields.insert("from_rest_api".into(), Value::Bool(true));
    }
    let update = AssetUpdate { asset: asset.clone(), extra, partition_key: call.body.owned("partition_key") };
    let event = gust_operations::record_asset_event(call.state.ports(), update).await?;
    Ok(Json(show_event(&event, Some(&asset))))
}
