//! Pools.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{Method, StatusCode},
};
use gust_model::{
    PoolName,
    record::{Pool, PoolUsage},
};
use gust_operations::PoolPatch;
use gust_ports::{Tx, metastore::TxMode};
use serde::Serialize;
use utoipa::ToSchema;

use super::lists::{PAGE, TEXT_LIST, bad_order, pattern, window};
use crate::{
    call::Call,
    endpoint::Endpoint,
    error::ApiError,
    inputs::{Field, Kind, TEXT, flag, int, optional, required},
    state::AppState,
};

const LIST: &[Field] = &[
    int("limit", 0, PAGE),
    int("offset", 0, 0),
    optional("order_by", TEXT_LIST),
    optional("pool_name_pattern", TEXT),
];
const POST: &[Field] = &[
    required("name", Kind::Text(256)),
    required("slots", Kind::Int(-1)),
    optional("description", TEXT),
    flag("include_deferred", false),
    optional("team_name", TEXT),
];
const PATCH: &[Field] = &[
    optional("pool", TEXT),
    optional("slots", Kind::Int(-1)),
    optional("description", TEXT),
    optional("include_deferred", Kind::Flag),
    optional("team_name", TEXT),
];
const UPDATE_MASK: &[Field] = &[optional("update_mask", TEXT_LIST)];

pub(super) fn endpoints() -> Vec<Endpoint> {
    let tag = "Pool";
    let one = "/api/v2/pools/{*pool_name}";
    vec![
        Endpoint::new(Method::GET, "/api/v2/pools", "get_pools", list)
            .about(tag, "Lists pools.")
            .query(LIST)
            .answers::<PoolCollectionResponse>(),
        Endpoint::new(Method::POST, "/api/v2/pools", "post_pool", post)
            .about(tag, "Adds a pool.")
            .body(POST)
            .status(201)
            .answers::<PoolResponse>(),
        Endpoint::new(Method::GET, one, "get_pool", get)
            .about(tag, "Gives a pool.")
            .answers::<PoolResponse>(),
        Endpoint::new(Method::PATCH, one, "patch_pool", patch)
            .about(tag, "Changes a pool.")
            .query(UPDATE_MASK)
            .body(PATCH)
            .answers::<PoolResponse>(),
        Endpoint::new(Method::DELETE, one, "delete_pool", delete).about(tag, "Removes a pool.").status(204),
    ]
}

/// `airflow/api_fastapi/core_api/datamodels/pools.py: PoolResponse`.
#[derive(Serialize, ToSchema)]
struct PoolResponse {
    name: String,
    slots: i32,
    description: Option<String>,
    include_deferred: bool,
    occupied_slots: i64,
    running_slots: i64,
    queued_slots: i64,
    scheduled_slots: i64,
    open_slots: i64,
    deferred_slots: i64,
    team_name: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct PoolCollectionResponse {
    pools: Vec<PoolResponse>,
    total_entries: usize,
}

fn show(pool: &Pool, usage: PoolUsage) -> PoolResponse {
    let occupied = usage.running + usage.queued + if pool.include_deferred { usage.deferred } else { 0 };
    PoolResponse {
        name: pool.name.to_string(),
        slots: pool.slots,
        description: pool.description.clone(),
        include_deferred: pool.include_deferred,
        occupied_slots: occupied,
        running_slots: usage.running,
        queued_slots: usage.queued,
        scheduled_slots: usage.scheduled,
        open_slots: if pool.slots < 0 { -1 } else { i64::from(pool.slots) - occupied },
        deferred_slots: usage.deferred,
        team_name: None,
    }
}

async fn usages(tx: &mut dyn Tx) -> Result<BTreeMap<PoolName, PoolUsage>, ApiError> {
    Ok(tx.pool_usage().await?.into_iter().collect())
}

async fn shown(state: &AppState, name: &PoolName) -> Result<PoolResponse, ApiError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let pool = tx
        .pools()
        .await?
        .into_iter()
        .find(|pool| pool.name == *name)
        .ok_or_else(|| ApiError::not_found(format!("The Pool with name: `{name}` was not found")))?;
    let usage = usages(&mut *tx).await?.get(name).copied().unwrap_or_default();
    Ok(show(&pool, usage))
}

async fn list(call: Call) -> Result<Json<PoolCollectionResponse>, ApiError> {
    let (limit, offset) = window(&call.query, "limit", "offset");
    let contains = pattern(&call.query, "pool_name_pattern")?.map(|text| text.to_lowercase());
    let mut tx = call.state.metastore.begin(TxMode::Read).await?;
    // There are few pools; the port gives all of them, by name.
    let mut pools = tx.pools().await?;
    pools.retain(|pool| {
        contains.as_ref().is_none_or(|text| pool.name.as_str().to_lowercase().contains(text.as_str()))
    });
    for order in call.query.texts("order_by") {
        match order {
            "name" | "pool" | "id" => {}
            "-name" | "-pool" | "-id" => pools.reverse(),
            other => return Err(bad_order(other.trim_start_matches('-'))),
        }
    }
    let usages = usages(&mut *tx).await?;
    let total_entries = pools.len();
    let pools = pools
        .iter()
        .skip(offset as usize)
        .take(limit as usize)
        .map(|pool| show(pool, usages.get(&pool.name).copied().unwrap_or_default()))
        .collect();
    Ok(Json(PoolCollectionResponse { pools, total_entries }))
}

async fn get(call: Call) -> Result<Json<PoolResponse>, ApiError> {
    shown(&call.state, &call.segment("pool_name").into()).await.map(Json)
}

fn small(number: Option<i64>, call: &Call) -> Result<Option<i32>, ApiError> {
    number
        .map(|number| {
            i32::try_from(number).map_err(|_| ApiError::invalid_body("slots is too large", &call.raw_body))
        })
        .transpose()
}

fn no_teams(call: &Call) -> Result<(), ApiError> {
    if call.body.text("team_name").is_some() {
        let text =
            "team_name cannot be set when multi_team mode is disabled. Please contact your administrator.";
        return Err(ApiError::invalid_body(text, &call.raw_body));
    }
    Ok(())
}

async fn post(call: Call) -> Result<(StatusCode, Json<PoolResponse>), ApiError> {
    no_teams(&call)?;
    let name = PoolName::from(call.body.text("name").unwrap_or_default());
    let slots = small(call.body.int("slots"), &call)?
        .ok_or_else(|| ApiError::invalid_body("slots must be a number", &call.raw_body))?;
    let pool = Pool {
        name: name.clone(),
        slots,
        description: call.body.owned("description"),
        include_deferred: call.body.is_set("include_deferred"),
    };
    gust_operations::create_pool(call.state.ports(), pool).await?;
    Ok((StatusCode::CREATED, Json(shown(&call.state, &name).await?)))
}

async fn patch(call: Call) -> Result<Json<PoolResponse>, ApiError> {
    no_teams(&call)?;
    let name = call.segment("pool_name");
    if call.body.text("pool").is_some_and(|other| !other.is_empty() && other != name) {
        return Err(ApiError::bad_request(
            "Invalid body, pool name from request body doesn't match uri parameter",
        ));
    }
    let mask: Vec<&str> = call.query.texts("update_mask").collect();
    let is_wanted = |name: &str| call.body.is_given(name) && (mask.is_empty() || mask.contains(&name));
    let patch = PoolPatch {
        slots: if is_wanted("slots") { small(call.body.int("slots"), &call)? } else { None },
        description: is_wanted("description").then(|| call.body.owned("description")),
        include_deferred: if is_wanted("include_deferred") {
            call.body.flag("include_deferred")
        } else {
            None
        },
    };
    gust_operations::update_pool(call.state.ports(), name.into(), patch).await?;
    shown(&call.state, &name.into()).await.map(Json)
}

async fn delete(call: Call) -> Result<StatusCode, ApiError> {
    gust_operations::delete_pool(call.state.ports(), call.segment("pool_name").into()).await?;
    Ok(StatusCode::NO_CONTENT)
}
