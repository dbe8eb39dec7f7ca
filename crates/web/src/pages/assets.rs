//! `/assets`: assets, who makes and who waits for them, and their last updates.

use std::collections::BTreeMap;

use axum::{
    Extension,
    extract::{Query, State},
    http::HeaderMap,
    response::Response,
};
use gust_model::{
    AssetId,
    record::{Asset, AssetEvent, AssetReference, AssetReferenceKind, Timestamp},
};
use gust_ports::metastore::{AssetEventFilter, TxMode};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    error::PageError,
    shell::{Page, Section, respond},
    urls, view,
};
use crate::{auth::Identity, state::AppState};

const PER_PAGE: u32 = 40;
const EVENTS: usize = 3;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    page: Option<String>,
}

/// `GET /assets`.
pub(super) async fn page(
    State(state): State<AppState>,
    Extension(who): Extension<Identity>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let number = view::page_number(asked.page.as_deref());
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let listing = tx.assets(PER_PAGE, (number - 1) * PER_PAGE).await?;
    let mut references: BTreeMap<AssetId, Vec<AssetReference>> = BTreeMap::new();
    let mut events: BTreeMap<AssetId, Vec<AssetEvent>> = BTreeMap::new();
    for asset in &listing.items {
        let mut of = tx.asset_references(&asset.name, None).await?;
        of.retain(|one| one.uri.as_deref().is_none_or(|uri| uri == asset.uri));
        references.insert(asset.id, of);
        let filter = AssetEventFilter {
            asset_ids: vec![asset.id],
            limit: u32::try_from(EVENTS).ok(),
            ..AssetEventFilter::default()
        };
        events.insert(asset.id, tx.asset_events(&filter).await?);
    }
    let now = tx.now().await?;
    drop(tx);
    let none = (Vec::new(), Vec::new());
    let body = html! {
        div.head { div.title { h1 { "Assets" } } }
        section.panel aria-label="Assets" {
            @if listing.items.is_empty() { p.empty { "No DAG names an asset." } } @else {
                div.scroll { table.list {
                    thead { tr { th { "Asset" } th { "Produced by" } th { "Consumed by" } th.opt2 { "Last updates" } } }
                    tbody {
                        @for asset in &listing.items {
                            (row(asset, references.get(&asset.id).unwrap_or(&none.0), events.get(&asset.id).unwrap_or(&none.1), now))
                        }
                    }
                } }
            }
            (view::pager(number, PER_PAGE, listing.total, |page| format!("/assets{}", urls::query(&[("page", &page.to_string())]))))
        }
    };
    let page = Page {
        title: "Assets",
        section: Section::Assets,
        events: Some("/events".into()),
        body,
        fixed: Markup::default(),
    };
    Ok(respond(&headers, &who, &page))
}

fn row(asset: &Asset, references: &[AssetReference], events: &[AssetEvent], now: Timestamp) -> Markup {
    let link = |one: &AssetReference| {
        html! {
            div {
                a href=(urls::dag(one.dag_id.as_str())) { (one.dag_id) }
                @if let Some(task) = &one.task_id { span.muted { " · " (task) } }
                @if one.kind == AssetReferenceKind::Schedule { span.muted { " · schedule" } }
            }
        }
    };
    html! {
        tr data-key=(asset.id) {
            td {
                span.name { (asset.name) }
                @if !asset.is_active { " " span.tag { "inactive" } }
                @if asset.uri != asset.name { div.desc title=(asset.uri) { (asset.uri) } }
            }
            td { @for one in references.iter().filter(|one| one.kind == AssetReferenceKind::Outlet) { (link(one)) } }
            td { @for one in references.iter().filter(|one| one.kind != AssetReferenceKind::Outlet) { (link(one)) } }
            td.opt2.small {
                @if events.is_empty() { span.muted { "never" } }
                @for event in events {
                    div {
                        (view::relative(event.timestamp, now))
                        @match (&event.source_dag_id, &event.source_run_id, &event.source_task_id) {
                            (Some(dag), Some(run), Some(task)) => { " by " a href=(urls::instance(dag.as_str(), run.as_str(), task.as_str(), event.source_map_index)) { (dag) " · " (task) } },
                            _ => { " by a client" },
                        }
                    }
                }
            }
        }
    }
}
