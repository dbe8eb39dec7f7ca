//! `/dags/{dag_id}`: one DAG, its grid, graph, runs and details.

use axum::{
    Extension,
    extract::{Path, Query, State},
    http::HeaderMap,
    response::Response,
};
use gust_model::{
    DagId, RunId, TaskInstanceState,
    dag::Dag,
    record::{DagRecord, DagRun, Timestamp},
};
use gust_operations::dag_params;
use gust_ports::{
    Tx,
    metastore::{DagRunFilter, DagRunSort, Direction, Page as Slice, TxMode},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    dags::{next_run, pause_switch, schedule},
    error::PageError,
    graph, grid, reads,
    shell::{Page, Section, crumbs, respond},
    urls,
    view::{self, Stated as _},
};
use crate::{
    auth::Identity,
    state::{AppState, Graph},
};

/// How many cells a grid may have, which decides how many runs it shows.
const CELLS: usize = 700;
const RUNS_PER_PAGE: u32 = 50;

/// What the page was asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    tab: Option<String>,
    run_id: Option<String>,
    page: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tab {
    Grid,
    Graph,
    Runs,
    Details,
}

const TABS: [(Tab, &str, &str); 4] = [
    (Tab::Grid, "", "Grid"),
    (Tab::Graph, "graph", "Graph"),
    (Tab::Runs, "runs", "Runs"),
    (Tab::Details, "details", "Details"),
];

fn tab_of(name: Option<&str>) -> Tab {
    TABS.iter().find(|(_, known, _)| Some(*known) == name).map_or(Tab::Grid, |(tab, _, _)| *tab)
}

/// `GET /dags/{dag_id}`.
pub(super) async fn page(
    State(state): State<AppState>,
    Extension(who): Extension<Identity>,
    Path(dag_id): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let id = DagId::from(dag_id.as_str());
    let record = tx.dag(&id).await?.ok_or_else(|| PageError::no_dag(&dag_id))?;
    let graph = state
        .graph(&mut *tx, record.current_version_id)
        .await?
        .ok_or_else(|| PageError::NotFound(format!("The graph of DAG {dag_id:?} is gone.")))?;
    let now = tx.now().await?;
    let tab = tab_of(asked.tab.as_deref());
    let content = match tab {
        Tab::Grid => grid_tab(&mut *tx, &graph, now).await?,
        Tab::Graph => graph_tab(&state, &mut *tx, &graph, asked.run_id.as_deref()).await?,
        Tab::Runs => runs_tab(&mut *tx, &id, view::page_number(asked.page.as_deref()), now).await?,
        Tab::Details => details_tab(&record, &graph),
    };
    drop(tx);
    let name = record.dag_display_name.as_deref().unwrap_or(&dag_id);
    let href = urls::dag(&dag_id);
    let body = html! {
        (crumbs(&[("DAGs", "/".into())]))
        (head(&record, name))
        (facts(&record, &graph, now))
        nav.tabs aria-label="Views" {
            @for (one, query, label) in TABS {
                a href={ (href) (urls::query(&[("tab", query)])) } aria-current=[(one == tab).then_some("page")] { (label) }
            }
        }
        (content)
    };
    let events = format!("/events{}", urls::query(&[("dag_id", &dag_id)]));
    let page =
        Page { title: name, section: Section::Dags, events: Some(events), body, fixed: Markup::default() };
    Ok(respond(&headers, &who, &page))
}

fn head(record: &DagRecord, name: &str) -> Markup {
    let id = record.dag_id.as_str();
    html! {
        div.head {
            div.title {
                (pause_switch(id, record.is_paused))
                h1 { (name) }
                (view::tags(record.tags.iter().map(String::as_str)))
                @if record.is_stale { span.badge.s-removed { "no longer in its file" } }
                @if record.has_import_errors { a.badge.s-failed href="/import-errors" { "import error" } }
            }
            div.actions {
                button.primary type="button" data-dialog-url={ (urls::dag(id)) "/trigger-dialog" } { "▶ Trigger" }
            }
        }
        @if let Some(text) = &record.description { p.muted { (text) } }
    }
}

fn facts(record: &DagRecord, graph: &Graph, now: Timestamp) -> Markup {
    html! {
        dl.facts {
            div { dt { "Schedule" } dd { (schedule(record)) @if let Some(words) = &record.timetable_description { " " span.muted.small { (words) } } } }
            div { dt { "Next run" } dd { (next_run(record, now)) } }
            div { dt { "Owner" } dd { (record.owners) } }
            div { dt { "File" } dd { code { (record.relative_fileloc) } } }
            div { dt { "Version" } dd { "v" (graph.version.version_number) " " span.muted.small { (view::relative(graph.version.created_at, now)) } } }
            div { dt { "Tasks" } dd { (graph.dag.tasks().len()) } }
        }
    }
}

async fn grid_tab(tx: &mut dyn Tx, graph: &Graph, now: Timestamp) -> Result<Markup, PageError> {
    let dag = &graph.dag;
    let wanted = (CELLS / dag.tasks().len().max(1)).clamp(4, 30);
    let wanted = u32::try_from(wanted).unwrap_or(4);
    let mut runs = tx.newest_dag_runs(std::slice::from_ref(&dag.dag_id), wanted).await?;
    runs.reverse();
    let cells = reads::cells(tx, &runs).await?;
    Ok(html! {
        section.panel aria-label="Grid of runs and tasks" {
            div.body { (grid::grid(dag, &runs, &cells, None, now)) }
            @if runs.is_empty() { p.empty { "No runs yet. Trigger one, or unpause the DAG if it has a schedule." } }
        }
        (view::legend(TaskInstanceState::ALL))
    })
}

/// The newest run, or the one asked for.
async fn chosen_run(
    tx: &mut dyn Tx,
    dag_id: &DagId,
    run_id: Option<&str>,
) -> Result<(Vec<DagRun>, Option<DagRun>), PageError> {
    let newest = tx.newest_dag_runs(std::slice::from_ref(dag_id), 25).await?;
    let chosen = match run_id {
        None | Some("") => newest.first().cloned(),
        Some(run_id) => Some(
            tx.dag_run(dag_id, &RunId::from(run_id))
                .await?
                .ok_or_else(|| PageError::no_run(dag_id.as_str(), run_id))?,
        ),
    };
    Ok((newest, chosen))
}

async fn graph_tab(
    state: &AppState,
    tx: &mut dyn Tx,
    graph: &Graph,
    run_id: Option<&str>,
) -> Result<Markup, PageError> {
    let dag_id = &graph.dag.dag_id;
    let (newest, chosen) = chosen_run(tx, dag_id, run_id).await?;
    let mut drawn = graph.dag.clone();
    let mut cells = reads::Cells::new();
    if let Some(run) = &chosen {
        if let Some(of_run) = state.graph(tx, run.dag_version_id).await? {
            drawn = of_run.dag.clone();
        }
        cells = reads::cells(tx, std::slice::from_ref(run)).await?.remove(&run.id).unwrap_or_default();
    }
    let address = |task: gust_model::dag::TaskIndex| {
        chosen
            .as_ref()
            .map(|run| urls::task(dag_id.as_str(), run.run_id.as_str(), drawn.task(task).task_id.as_str()))
    };
    Ok(html! {
        section.panel aria-label="Graph" {
            header {
                form.filters.inline method="get" action=(urls::dag(dag_id.as_str())) {
                    input type="hidden" name="tab" value="graph";
                    label.check { "Run "
                        select name="run_id" data-submit {
                            @if newest.is_empty() { option value="" { "none yet" } }
                            @for run in &newest {
                                option value=(run.run_id) selected[chosen.as_ref().is_some_and(|one| one.id == run.id)] { (run.run_id) " · " (run.state.name()) }
                            }
                        }
                    }
                }
                (view::legend(&cells_states(&cells)))
            }
            (graph::picture(&drawn, chosen.as_ref().map(|_| &cells), address))
        }
    })
}

/// The states that occur, in their usual order.
pub(super) fn cells_states(cells: &reads::Cells) -> Vec<TaskInstanceState> {
    let occurs = |state: &TaskInstanceState| cells.values().any(|cell| cell.state() == *state);
    TaskInstanceState::ALL.iter().copied().filter(occurs).collect()
}

async fn runs_tab(tx: &mut dyn Tx, dag_id: &DagId, number: u32, now: Timestamp) -> Result<Markup, PageError> {
    let filter = DagRunFilter { dag_ids: vec![dag_id.clone()], ..DagRunFilter::default() };
    let slice = Slice {
        limit: RUNS_PER_PAGE,
        offset: (number - 1) * RUNS_PER_PAGE,
        sort: vec![(DagRunSort::RunAfter, Direction::Descending)],
    };
    let listing = tx.dag_runs(&filter, &slice).await?;
    Ok(html! {
        section.panel aria-label="Runs" {
            @if listing.items.is_empty() { p.empty { "No runs yet." } }
            @else {
                div.scroll {
                    table.list {
                        thead { tr { th { "Run" } th { "State" } th.opt2 { "Type" } th.opt { "Logical date" } th.opt2 { "Started" } th { "Duration" } th.opt { "Note" } } }
                        tbody {
                            @for run in &listing.items {
                                @let href = urls::run(dag_id.as_str(), run.run_id.as_str());
                                tr data-key=(run.id) data-href=(href) {
                                    td { a.name href=(href) { (run.run_id) } }
                                    td { (view::state(run.state)) }
                                    td.opt2 { (run.run_type) }
                                    td.opt { (view::time(run.logical_date)) }
                                    td.opt2 { (view::time(run.start_date)) }
                                    td { (view::took(run.start_date, run.end_date, now)) }
                                    td.opt { @if let Some(note) = &run.note { div.desc title=(note) { (note) } } }
                                }
                            }
                        }
                    }
                }
                (view::pager(number, RUNS_PER_PAGE, listing.total, |page| format!("{}{}", urls::dag(dag_id.as_str()), urls::query(&[("tab", "runs"), ("page", &page.to_string())]))))
            }
        }
    })
}

fn details_tab(record: &DagRecord, graph: &Graph) -> Markup {
    let dag: &Dag = &graph.dag;
    let params = dag_params(dag);
    html! {
        @if let Some(text) = &dag.doc_md {
            section.panel aria-label="Documentation" { header { h2 { "Documentation" } } div.body { pre { (text) } } }
        }
        @if !params.is_empty() {
            section.panel aria-label="Params" {
                header { h2 { "Params" } }
                div.scroll { table.list {
                    thead { tr { th { "Name" } th { "Default" } th { "Schema" } th { "Description" } } }
                    tbody {
                        @for param in &params {
                            tr {
                                td { code { (param.name) } }
                                td { @match &param.default { Some(value) => { (view::json(value)) }, None => { span.muted { "required" } } } }
                                td { (view::json(&param.schema)) }
                                td { (param.description.as_deref().unwrap_or_default()) }
                            }
                        }
                    }
                } }
            }
        }
        section.panel aria-label="Details" {
            table.kv {
                tr { th scope="row" { "DAG id" } td { code { (record.dag_id) } } }
                tr { th scope="row" { "Bundle" } td { (record.bundle_name) } }
                tr { th scope="row" { "Bundle version" } td { code { (record.bundle_version.as_ref().map_or("none", |version| version.as_str())) } } }
                tr { th scope="row" { "Graph hash" } td { code { (graph.version.hash) } } }
                tr { th scope="row" { "Max active runs" } td { (dag.max_active_runs) } }
                tr { th scope="row" { "Max active tasks a run" } td { (dag.max_active_tasks) } }
                tr { th scope="row" { "Catchup" } td { (if dag.catchup { "yes" } else { "no" }) } }
                tr { th scope="row" { "Start date" } td { (view::time(dag.start_date)) } }
                tr { th scope="row" { "End date" } td { (view::time(dag.end_date)) } }
                tr { th scope="row" { "Last parsed" } td { (view::time(Some(record.last_parsed_at))) " in " (view::duration(record.last_parse_duration)) } }
                @if !record.asset_expression.is_null() {
                    tr { th scope="row" { "Waits for assets" } td { (view::json(&record.asset_expression)) } }
                }
            }
        }
    }
}
