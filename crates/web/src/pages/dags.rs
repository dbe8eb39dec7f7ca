//! `/`: all DAGs.

use std::collections::BTreeMap;

use axum::{
    Extension,
    extract::{Query, State},
    http::HeaderMap,
    response::Response,
};
use gust_model::{
    DagId, DagRunState,
    record::{DagRecord, DagRun, Timestamp},
};
use gust_ports::{
    MetastoreError, Tx,
    metastore::{DagFilter, DagRunFilter, DagSort, Direction, Page as Slice, TxMode},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    error::PageError,
    shell::{Page, Section, respond},
    urls,
    view::{self, Stated as _},
};
use crate::{auth::Identity, state::AppState};

const PER_PAGE: u32 = 30;
const RUNS_SHOWN: u32 = 14;
/// How many runs under way are counted at most.
const MAX_ACTIVE: u32 = 500;
/// How many DAGs' tags are gathered for the choice of tags.
const MAX_FOR_TAGS: u32 = 1000;

/// What the page was asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    q: Option<String>,
    tag: Option<String>,
    show: Option<String>,
    page: Option<String>,
}

/// The choices above the list.
const SHOWN: [(&str, &str); 6] = [
    ("", "All"),
    ("active", "Active"),
    ("paused", "Paused"),
    ("running", "Running"),
    ("failed", "Failed"),
    ("success", "Success"),
];

impl Asked {
    fn show(&self) -> &str {
        self.show.as_deref().unwrap_or_default()
    }

    fn text(&self) -> &str {
        self.q.as_deref().unwrap_or_default().trim()
    }

    fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or_default()
    }

    fn address(&self, show: &str, page: u32) -> String {
        let page = if page > 1 { page.to_string() } else { String::new() };
        let pairs = [("q", self.text()), ("tag", self.tag()), ("show", show), ("page", &page)];
        format!("/{}", urls::query(&pairs))
    }

    fn filter(&self, show: &str) -> DagFilter {
        DagFilter {
            name_contains: Some(self.text().to_owned()).filter(|text| !text.is_empty()),
            tags_any: Some(self.tag().to_owned()).filter(|tag| !tag.is_empty()).into_iter().collect(),
            is_stale: Some(false),
            is_paused: match show {
                "active" => Some(false),
                "paused" => Some(true),
                _ => None,
            },
            last_run_state: match show {
                "running" => Some(DagRunState::Running),
                "failed" => Some(DagRunState::Failed),
                "success" => Some(DagRunState::Success),
                _ => None,
            },
            ..DagFilter::default()
        }
    }
}

/// What is shown of the DAGs on one page.
struct Facts {
    dags: Vec<DagRecord>,
    total: u64,
    totals: Vec<u64>,
    runs: BTreeMap<DagId, Vec<DagRun>>,
    active: BTreeMap<DagId, BTreeMap<DagRunState, u32>>,
    tags: Vec<String>,
    import_errors: u64,
    now: Timestamp,
}

async fn read(tx: &mut dyn Tx, asked: &Asked, page: u32) -> Result<Facts, MetastoreError> {
    let slice = Slice {
        limit: PER_PAGE,
        offset: (page - 1) * PER_PAGE,
        sort: vec![(DagSort::DisplayName, Direction::Ascending)],
    };
    let listing = tx.dags(&asked.filter(asked.show()), &slice).await?;
    let mut totals = Vec::with_capacity(SHOWN.len());
    for (show, _) in SHOWN {
        totals.push(tx.dags(&asked.filter(show), &Slice::first(1)).await?.total);
    }
    let ids: Vec<DagId> = listing.items.iter().map(|dag| dag.dag_id.clone()).collect();
    let mut runs: BTreeMap<DagId, Vec<DagRun>> = BTreeMap::new();
    let mut active: BTreeMap<DagId, BTreeMap<DagRunState, u32>> = BTreeMap::new();
    if !ids.is_empty() {
        for run in tx.newest_dag_runs(&ids, RUNS_SHOWN).await? {
            runs.entry(run.dag_id.clone()).or_default().push(run);
        }
        let under_way = DagRunFilter {
            dag_ids: ids,
            states: vec![DagRunState::Queued, DagRunState::Running],
            ..DagRunFilter::default()
        };
        for run in tx.dag_runs(&under_way, &Slice::first(MAX_ACTIVE)).await?.items {
            *active.entry(run.dag_id).or_default().entry(run.state).or_default() += 1;
        }
    }
    let everything = DagFilter { is_stale: Some(false), ..DagFilter::default() };
    let mut tags: Vec<String> = tx
        .dags(&everything, &Slice::first(MAX_FOR_TAGS))
        .await?
        .items
        .into_iter()
        .flat_map(|dag| dag.tags)
        .collect();
    tags.sort();
    tags.dedup();
    let import_errors = tx.import_errors(1, 0).await?.total;
    let now = tx.now().await?;
    Ok(Facts { dags: listing.items, total: listing.total, totals, runs, active, tags, import_errors, now })
}

/// `GET /`.
pub(super) async fn page(
    State(state): State<AppState>,
    Extension(who): Extension<Identity>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let number = view::page_number(asked.page.as_deref());
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let facts = read(&mut *tx, &asked, number).await?;
    drop(tx);
    let body = body(&asked, &facts, number);
    let page = Page {
        title: "DAGs",
        section: Section::Dags,
        events: Some("/events".into()),
        body,
        fixed: Markup::default(),
    };
    Ok(respond(&headers, &who, &page))
}

pub(super) fn import_error_banner(count: u64) -> Markup {
    html! {
        @if count > 0 {
            div.banner role="status" {
                span { (count) @if count == 1 { " file cannot be imported." } @else { " files cannot be imported." } }
                a href="/import-errors" { "Show why" }
            }
        }
    }
}

fn body(asked: &Asked, facts: &Facts, number: u32) -> Markup {
    html! {
        h1.visually-hidden { "DAGs" }
        (import_error_banner(facts.import_errors))
        form.filters method="get" action="/" role="search" {
            input type="search" name="q" value=(asked.text()) placeholder="Search DAGs  ( / )" aria-label="Search DAGs by name";
            @if !asked.show().is_empty() { input type="hidden" name="show" value=(asked.show()); }
            select name="tag" data-submit aria-label="Tag" {
                option value="" { "All tags" }
                @for tag in &facts.tags { option value=(tag) selected[tag == asked.tag()] { (tag) } }
            }
            div.pills role="group" aria-label="Show" {
                @for ((show, name), count) in SHOWN.iter().zip(&facts.totals) {
                    a href=(asked.address(show, 1)) aria-current=[(*show == asked.show()).then_some("true")] { (name) " " b { (count) } }
                }
            }
        }
        section.panel aria-label="DAGs" {
            @if facts.dags.is_empty() {
                div.empty {
                    @if facts.totals.first() == Some(&0) && asked.text().is_empty() && asked.tag().is_empty() {
                        p { "No DAG is known yet. Files in the DAG folder appear here as soon as they are parsed." }
                    } @else {
                        p { "No DAG matches. " a href="/" { "Show all" } }
                    }
                }
            } @else {
                div.scroll {
                    table.list {
                        thead {
                            tr {
                                th.fit { span.visually-hidden { "Active" } }
                                th { "DAG" }
                                th.opt2 { "Schedule" }
                                th.opt2 { "Next run" }
                                th { "Last runs" }
                                th.opt { "Latest run" }
                                th.opt { "Under way" }
                                th.opt { "Owner" }
                                th.fit { span.visually-hidden { "Actions" } }
                            }
                        }
                        tbody { @for dag in &facts.dags { (row(dag, facts)) } }
                    }
                }
                (view::pager(number, PER_PAGE, facts.total, |page| asked.address(asked.show(), page)))
            }
        }
    }
}

fn row(dag: &DagRecord, facts: &Facts) -> Markup {
    let id = dag.dag_id.as_str();
    let name = dag.dag_display_name.as_deref().unwrap_or(id);
    let href = urls::dag(id);
    let no_runs = Vec::new();
    let runs = facts.runs.get(&dag.dag_id).unwrap_or(&no_runs);
    html! {
        tr data-key=(id) data-href=(href) {
            td { (pause_switch(id, dag.is_paused)) }
            td.wide {
                a.name href=(href) { (name) }
                " " (view::tags(dag.tags.iter().map(String::as_str)))
                @if dag.has_import_errors { " " a.small.danger href="/import-errors" { "import error" } }
                @if let Some(text) = &dag.description { div.desc title=(text) { (text) } }
            }
            td.opt2 { (schedule(dag)) }
            td.opt2 { (next_run(dag, facts.now)) }
            td { (bars(id, runs, facts.now)) }
            td.opt.nowrap {
                @if let Some(run) = runs.first() {
                    (view::state(run.state)) " "
                    span.muted.small { (view::relative(run.start_date.unwrap_or(run.queued_at), facts.now)) }
                }
            }
            td.opt {
                @if let Some(counts) = facts.active.get(&dag.dag_id) {
                    span.counts {
                        @for (state, count) in counts {
                            span.count.(state.class()) title={ (count) " runs " (state.name()) } { (count) }
                        }
                    }
                }
            }
            td.opt.small { (dag.owners) }
            td {
                button.quiet type="button" data-dialog-url={ (urls::dag(id)) "/trigger-dialog" } title="Trigger a run" aria-label={ "Trigger " (name) } { "▶" }
            }
        }
    }
}

/// The switch that pauses and unpauses.
pub(super) fn pause_switch(dag_id: &str, is_paused: bool) -> Markup {
    html! {
        button.switch type="button" role="switch" aria-checked=(if is_paused { "false" } else { "true" })
            data-path=(urls::api_dag(dag_id)) aria-label={ "Scheduling of " (dag_id) }
            title=(if is_paused { "Paused: no new runs start" } else { "Active" }) {}
    }
}

/// The timetable in short, its words in the title.
pub(super) fn schedule(dag: &DagRecord) -> Markup {
    match dag.timetable_summary.as_deref() {
        Some(summary) if !summary.is_empty() && summary != "None" => html! {
            code.nowrap title=[dag.timetable_description.as_deref()] { (summary) }
        },
        _ => html! { span.muted { "–" } },
    }
}

/// When the timetable makes a run next.
pub(super) fn next_run(dag: &DagRecord, now: Timestamp) -> Markup {
    match &dag.next_run {
        Some(next) if !dag.is_paused => view::relative(next.run_after, now),
        Some(next) => {
            html! { span.muted title={ "would be due " (view::moment(next.run_after)) " UTC" } { "paused" } }
        }
        None => html! { span.muted { "–" } },
    }
}

const HEIGHTS: [&str; 8] = ["h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8"];

/// Which of eight heights a length has beside the longest.
fn height_class(seconds: f64, longest: f64) -> &'static str {
    if longest <= 0.0 {
        return HEIGHTS[3];
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "It is between 0 and 7.")]
    let at = (seconds / longest * 7.0).round().clamp(0.0, 7.0) as usize;
    HEIGHTS[at]
}

/// The last runs as bars, old to new, as tall as they took long. `runs` are new to old.
fn bars(dag_id: &str, runs: &[DagRun], now: Timestamp) -> Markup {
    let length = |run: &DagRun| {
        run.start_date.map_or(0.0, |start| view::seconds_between(start, run.end_date.unwrap_or(now)).max(0.0))
    };
    let longest = runs.iter().map(length).fold(0.0, f64::max);
    html! {
        span.bars {
            @for (at, run) in runs.iter().enumerate().rev() {
                a.(run.state.class()).(height_class(length(run), longest))
                    href=(urls::run(dag_id, run.run_id.as_str()))
                    tabindex=[(at > 0).then_some("-1")]
                    title={ (run.state) " · " (view::moment(run.run_after)) " · " (view::duration(length(run))) }
                    aria-label={ "Run of " (view::moment(run.run_after)) ", " (run.state) } {}
            }
        }
    }
}
