//! `/import-errors`: files that cannot be imported, and why.

use axum::{
    Extension,
    extract::{Query, State},
    http::HeaderMap,
    response::Response,
};
use gust_ports::metastore::TxMode;
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    error::PageError,
    shell::{Page, Section, crumbs, respond},
    urls, view,
};
use crate::{auth::Identity, state::AppState};

const PER_PAGE: u32 = 20;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    page: Option<String>,
}

/// `GET /import-errors`.
pub(super) async fn page(
    State(state): State<AppState>,
    Extension(who): Extension<Identity>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let number = view::page_number(asked.page.as_deref());
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let listing = tx.import_errors(PER_PAGE, (number - 1) * PER_PAGE).await?;
    let now = tx.now().await?;
    drop(tx);
    let body = html! {
        (crumbs(&[("DAGs", "/".into())]))
        div.head { div.title { h1 { "Import errors" } } }
        @if listing.items.is_empty() { div.panel { p.empty { "Every file can be imported." } } }
        @for error in &listing.items {
            section.panel data-key={ "e" (error.id) } {
                header {
                    h2 { code { (error.filename) } }
                    span.muted.small { (error.bundle_name) " · " (view::relative(error.timestamp, now)) }
                }
                div.body { pre tabindex="0" { (error.stack_trace) } }
            }
        }
        (view::pager(number, PER_PAGE, listing.total, |page| format!("/import-errors{}", urls::query(&[("page", &page.to_string())]))))
    };
    let page = Page {
        title: "Import errors",
        section: Section::Dags,
        events: Some("/events".into()),
        body,
        fixed: Markup::default(),
    };
    Ok(respond(&headers, &who, &page))
}
