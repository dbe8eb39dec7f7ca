//! `/health`: the metastore and the processes that say they live.

use axum::{Extension, extract::State, http::HeaderMap, response::Response};
use chrono::TimeDelta;
use gust_model::record::{Component, ComponentKind, Timestamp};
use gust_ports::metastore::TxMode;
use maud::{Markup, html};

use super::{
    error::PageError,
    shell::{Page, Section, respond},
    view,
};
use crate::{auth::Identity, state::AppState};

/// For how long a process that has ended is shown beside one that lives, in minutes.
const SHOWN_MIN: i64 = 30;

fn name(kind: ComponentKind) -> &'static str {
    match kind {
        ComponentKind::Scheduler => "Scheduler",
        ComponentKind::DagProcessor => "DAG processor",
        ComponentKind::Triggerer => "Triggerer",
        ComponentKind::Worker => "Worker",
    }
}

/// `GET /health`.
pub(super) async fn page(
    State(state): State<AppState>,
    Extension(who): Extension<Identity>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let components = tx.components().await?;
    let now = tx.now().await?;
    drop(tx);
    let threshold = TimeDelta::seconds(i64::from(state.settings.health_threshold_s));
    let kinds = [
        ComponentKind::Scheduler,
        ComponentKind::DagProcessor,
        ComponentKind::Triggerer,
        ComponentKind::Worker,
    ];
    let body = html! {
        div.head { div.title { h1 { "Health" } } }
        dl.facts {
            div { dt { "Metastore" } dd { span.state.s-success { (state.metastore.describe()) } } }
            div { dt { "Version" } dd { (env!("CARGO_PKG_VERSION")) } }
            div { dt { "Clock" } dd { (view::time(Some(now))) " UTC" } }
        }
        section.panel aria-label="Processes" {
            table.list {
                thead { tr { th { "Component" } th { "State" } th { "Process" } th { "Last heartbeat" } th.opt2 { "Up since" } } }
                tbody {
                    @for kind in kinds {
                        @let of: Vec<&Component> = components.iter().filter(|one| one.kind == kind).collect();
                        @if of.is_empty() {
                            tr { td { (name(kind)) } td { span.state.s-none { "never seen" } } td {} td {} td.opt2 {} }
                        }
                        @let lives = of.iter().any(|one| now - one.heartbeat_at <= threshold);
                        @for one in of.iter().filter(|one| !lives || now - one.heartbeat_at <= TimeDelta::minutes(SHOWN_MIN)) {
                            (row(one, lives, now, threshold))
                        }
                    }
                }
            }
        }
    };
    let page = Page {
        title: "Health",
        section: Section::Health,
        events: Some("/events".into()),
        body,
        fixed: Markup::default(),
    };
    Ok(respond(&headers, &who, &page))
}

/// One process; where another of its kind lives, its silence is no alarm.
fn row(one: &Component, lives: bool, now: Timestamp, threshold: TimeDelta) -> Markup {
    html! {
        tr data-key={ (name(one.kind)) (one.name) } {
            td { (name(one.kind)) }
            td {
                @if now - one.heartbeat_at <= threshold { span.state.s-success { "healthy" } }
                @else if lives { span.state.s-removed { "gone" } }
                @else { span.state.s-failed { "silent" } }
            }
            td.mono.small { (one.name) }
            td { (view::relative(one.heartbeat_at, now)) }
            td.opt2 { (view::time(Some(one.started_at))) }
        }
    }
}
