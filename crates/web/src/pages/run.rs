//! `/dags/{dag_id}/runs/{run_id}`: one run.

use axum::{
    Extension,
    extract::{Path, Query, State},
    http::HeaderMap,
    response::Response,
};
use gust_model::{
    DagId, RunId, TaskId, TaskInstanceState,
    dag::Dag,
    record::{DagRun, Timestamp},
};
use gust_ports::metastore::TxMode;
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    dag::cells_states,
    error::PageError,
    gantt::Span,
    graph,
    reads::{self, Cell, Cells},
    shell::{Page, Section, crumbs, respond},
    urls,
    view::{self, Stated as _},
};
use crate::{auth::Identity, state::AppState};

/// How many tasks one page of the table shows.
const PER_PAGE: usize = 150;

/// What the page was asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    tab: Option<String>,
    page: Option<String>,
    state: Option<String>,
}

const TABS: [(&str, &str); 3] = [("", "Tasks"), ("graph", "Graph"), ("details", "Details")];

/// `GET /dags/{dag_id}/runs/{run_id}`.
pub(super) async fn page(
    State(state): State<AppState>,
    Extension(who): Extension<Identity>,
    Path((dag_id, run_id)): Path<(String, String)>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let run = tx
        .dag_run(&DagId::from(dag_id.as_str()), &RunId::from(run_id.as_str()))
        .await?
        .ok_or_else(|| PageError::no_run(&dag_id, &run_id))?;
    let graph = state
        .graph(&mut *tx, run.dag_version_id)
        .await?
        .ok_or_else(|| PageError::NotFound(format!("The graph that run {run_id:?} follows is gone.")))?;
    let cells = reads::cells(&mut *tx, std::slice::from_ref(&run)).await?.remove(&run.id).unwrap_or_default();
    let now = tx.now().await?;
    drop(tx);

    let dag = &graph.dag;
    let tab = asked.tab.as_deref().unwrap_or_default();
    let href = urls::run(&dag_id, &run_id);
    let content = match tab {
        "graph" => graph_tab(dag, &run, &cells),
        "details" => details_tab(&run, graph.version.version_number),
        _ => {
            let state = asked.state.as_deref().and_then(|state| state.parse().ok());
            tasks_tab(dag, &run, &cells, state, view::page_number(asked.page.as_deref()), now)
        }
    };
    let name = dag.display_name.as_deref().unwrap_or(&dag_id);
    let body = html! {
        (crumbs(&[("DAGs", "/".into()), (name, urls::dag(&dag_id))]))
        (head(&run))
        (facts(&run, now))
        @if let Some(note) = &run.note { section.panel aria-label="Note" { div.body { pre { (note) } } } }
        nav.tabs aria-label="Views" {
            @for (query, label) in TABS {
                a href={ (href) (urls::query(&[("tab", query)])) } aria-current=[(query == tab).then_some("page")] { (label) }
            }
        }
        (content)
    };
    let events = format!("/events{}", urls::query(&[("dag_id", &dag_id), ("run_id", &run_id)]));
    let title = format!("{run_id} · {name}");
    let page =
        Page { title: &title, section: Section::Dags, events: Some(events), body, fixed: Markup::default() };
    Ok(respond(&headers, &who, &page))
}

fn head(run: &DagRun) -> Markup {
    let here = urls::run(run.dag_id.as_str(), run.run_id.as_str());
    html! {
        div.head {
            div.title { h1 { (run.run_id) } (view::badge(run.state)) }
            div.actions {
                button type="button" data-dialog-url={ (here) "/clear-dialog" } { "↻ Clear" }
                button type="button" data-dialog-url={ (here) "/mark-dialog?state=success" } { "Mark success" }
                button type="button" data-dialog-url={ (here) "/mark-dialog?state=failed" } { "Mark failed" }
                button type="button" data-dialog-url={ (here) "/note-dialog" } { "Note" }
            }
        }
    }
}

fn facts(run: &DagRun, now: Timestamp) -> Markup {
    html! {
        dl.facts {
            div { dt { "Type" } dd { (run.run_type) } }
            div { dt { "Logical date" } dd { (view::time(run.logical_date)) } }
            div { dt { "Run after" } dd { (view::time(Some(run.run_after))) } }
            div { dt { "Started" } dd { (view::time(run.start_date)) } }
            div { dt { "Ended" } dd { (view::time(run.end_date)) } }
            div { dt { "Duration" } dd { (view::took(run.start_date, run.end_date, now)) } }
            @if let Some(door) = run.triggered_by {
                div { dt { "Triggered by" } dd { (door) @if let Some(user) = &run.triggering_user { " (" (user) ")" } } }
            }
        }
    }
}

/// The tasks that the run has or will have, in the order in which they run; then those that are only in the run.
fn names(dag: &Dag, cells: &Cells) -> Vec<TaskId> {
    let mut names: Vec<TaskId> =
        dag.topological().iter().map(|task| dag.task(*task).task_id.clone()).collect();
    names.extend(cells.keys().filter(|task| dag.index_of(task.as_str()).is_none()).cloned());
    names
}

fn tasks_tab(
    dag: &Dag,
    run: &DagRun,
    cells: &Cells,
    state: Option<TaskInstanceState>,
    number: u32,
    now: Timestamp,
) -> Markup {
    let span = Span::of(cells.values(), now);
    let all = names(dag, cells);
    let has = |name: &TaskId, state| cells.get(name).is_some_and(|cell| cell.states.contains_key(&state));
    let shown: Vec<&TaskId> = all.iter().filter(|name| state.is_none_or(|state| has(name, state))).collect();
    let occur: Vec<(TaskInstanceState, usize)> = TaskInstanceState::ALL
        .iter()
        .map(|&state| (state, all.iter().filter(|name| has(name, state)).count()))
        .filter(|&(one, count)| count > 0 || state == Some(one))
        .collect();
    let skip = (number as usize - 1) * PER_PAGE;
    let here = urls::run(run.dag_id.as_str(), run.run_id.as_str());
    let address = |state: Option<TaskInstanceState>, page: &str| {
        format!(
            "{here}{}",
            urls::query(&[("state", state.map_or("", |state| state.as_str())), ("page", page)])
        )
    };
    html! {
        @if occur.len() > 1 || state.is_some() {
            div.filters {
                div.pills role="group" aria-label="State" {
                    a href=(address(None, "")) aria-current=[state.is_none().then_some("true")] { "All " b { (all.len()) } }
                    @for (one, count) in &occur {
                        a href=(address(Some(*one), "")) aria-current=[(state == Some(*one)).then_some("true")] { (view::state(*one)) " " b { (count) } }
                    }
                }
            }
        }
        section.panel aria-label="Tasks" {
            @if all.is_empty() { p.empty { "This DAG has no tasks." } }
            @else if shown.is_empty() { p.empty { "No task is in this state now." } }
            @else {
                div.scroll {
                    table.list {
                        thead { tr { th { "Task" } th { "State" } th.opt2 { "Operator" } th.num.opt { "Tries" } th.opt2 { "Started" } th { "Duration" } th.opt { "When" } } }
                        tbody {
                            @for name in shown.iter().skip(skip).take(PER_PAGE) { (task_row(dag, run, name, cells.get(*name), span, now)) }
                        }
                    }
                }
                (view::pager(number, 150, shown.len() as u64, |page| address(state, &page.to_string())))
            }
        }
    }
}

fn task_row(
    dag: &Dag,
    run: &DagRun,
    name: &TaskId,
    cell: Option<&Cell>,
    span: Option<Span>,
    now: Timestamp,
) -> Markup {
    let href = urls::task(run.dag_id.as_str(), run.run_id.as_str(), name.as_str());
    let task = dag.index_of(name.as_str()).map(|task| dag.task(task));
    let operator =
        task.map(|task| task.operator_name.as_deref().unwrap_or(&task.task_type)).unwrap_or_default();
    html! {
        @if let Some(cell) = cell {
            tr data-key=(name) data-href=(href) {
                td {
                    a.name href=(href) { (task.and_then(|task| task.display_name.as_deref()).unwrap_or(name.as_str())) }
                    @if cell.is_mapped { span.muted { " [" (cell.total()) "]" } }
                }
                td {
                    @if cell.is_mapped && cell.states.len() > 1 { (counts(cell)) } @else { (view::state(cell.state())) }
                }
                td.opt2.small { (operator) }
                td.num.opt { (cell.try_number) }
                td.opt2 { (view::time(cell.start)) }
                td { (view::took(cell.start, cell.end, now)) }
                td.opt.ganttcell { @if let Some(span) = span { (span.bar(cell, now)) } }
            }
        } @else {
            tr data-key=(name) {
                td { (task.and_then(|task| task.display_name.as_deref()).unwrap_or(name.as_str())) }
                td { span.muted { "not planned yet" } }
                td.opt2.small { (operator) }
                td.num.opt {} td.opt2 {} td {} td.opt.ganttcell {}
            }
        }
    }
}

/// How many instances are in each state.
pub(super) fn counts(cell: &Cell) -> Markup {
    html! {
        span.counts {
            @for (state, count) in &cell.states {
                span.count.(state.class()) title={ (count) " " (state.name()) } { (count) }
            }
        }
    }
}

fn graph_tab(dag: &Dag, run: &DagRun, cells: &Cells) -> Markup {
    let address = |task: gust_model::dag::TaskIndex| {
        Some(urls::task(run.dag_id.as_str(), run.run_id.as_str(), dag.task(task).task_id.as_str()))
    };
    html! {
        section.panel aria-label="Graph" {
            header { h2 { "Graph" } (view::legend(&cells_states(cells))) }
            (graph::picture(dag, Some(cells), address))
        }
    }
}

fn details_tab(run: &DagRun, version: i32) -> Markup {
    html! {
        section.panel aria-label="Conf" { header { h2 { "Conf" } } div.body { (view::json(&run.conf)) } }
        section.panel aria-label="Details" {
            table.kv {
                tr { th scope="row" { "Run id" } td { code { (run.run_id) } } }
                tr { th scope="row" { "DAG version" } td { "v" (version) } }
                tr { th scope="row" { "Bundle version" } td { code { (run.bundle_version.as_ref().map_or("none", |version| version.as_str())) } } }
                tr { th scope="row" { "Data interval" } td { (view::time(run.data_interval_start)) " to " (view::time(run.data_interval_end)) } }
                tr { th scope="row" { "Queued" } td { (view::time(Some(run.queued_at))) } }
                tr { th scope="row" { "Last scheduling decision" } td { (view::time(run.last_scheduling_decision)) } }
                tr { th scope="row" { "Cleared" } td { (run.clear_number) " times" } }
                @if let Some(key) = &run.partition_key { tr { th scope="row" { "Partition" } td { (key) } } }
                tr { th scope="row" { "Unfinished task instances" } td { (run.unfinished_count) } }
            }
        }
        p {
            button.bad type="button" data-dialog="delete-run" { "Delete this run" }
        }
        dialog #delete-run {
            form data-method="DELETE" data-path=(urls::api_run(run.dag_id.as_str(), run.run_id.as_str())) data-go=(urls::dag(run.dag_id.as_str())) {
                h2 { "Delete this run?" }
                p { "Its task instances and XComs go with it. Logs stay." }
                output.error hidden role="alert" {}
                footer { button type="button" data-close { "Cancel" } button.bad type="submit" { "Delete" } }
            }
        }
    }
}
