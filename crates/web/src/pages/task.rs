//! `/dags/{dag_id}/runs/{run_id}/tasks/{task_id}`: one task instance, or all of a mapped task's.

use axum::{
    Extension,
    extract::{Path, Query, State},
    http::HeaderMap,
    response::Response,
};
use gust_model::{
    DagId, MapIndex, RunId, TaskId, TaskInstanceState,
    dag::Task,
    record::{DagRun, TaskInstance, Timestamp, XCom},
};
use gust_ports::{
    Tx,
    metastore::{Direction, Page as Slice, TaskInstanceFilter, TaskInstanceSort, TxMode, XComFilter},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::{
    error::PageError,
    reads, run,
    shell::{Page, Section, crumbs, respond},
    urls,
    view::{self, Stated as _},
};
use crate::{
    auth::Identity,
    state::{AppState, Graph},
};

const INSTANCES_PER_PAGE: u32 = 100;
/// How many XComs are shown, and how much of each, in characters.
const MAX_XCOMS: u32 = 100;
const MAX_XCOM_CHARS: usize = 8_000;

/// What the page was asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    map_index: Option<i32>,
    tab: Option<String>,
    #[serde(rename = "try")]
    try_number: Option<i32>,
    page: Option<String>,
    state: Option<String>,
}

impl Asked {
    fn tab(&self) -> &str {
        self.tab.as_deref().unwrap_or_default()
    }
}

const TABS: [(&str, &str); 4] =
    [("", "Log"), ("xcom", "XCom"), ("rendered", "Rendered"), ("details", "Details")];

/// What all views of the page need.
struct Place<'p> {
    run: &'p DagRun,
    graph: &'p Graph,
    task_id: &'p str,
    now: Timestamp,
}

impl Place<'_> {
    fn task(&self) -> Option<&Task> {
        self.graph.dag.index_of(self.task_id).map(|task| self.graph.dag.task(task))
    }

    fn name(&self) -> &str {
        self.task().and_then(|task| task.display_name.as_deref()).unwrap_or(self.task_id)
    }

    fn address(&self, map_index: MapIndex, pairs: &[(&str, &str)]) -> String {
        let (dag_id, run_id) = (self.run.dag_id.as_str(), self.run.run_id.as_str());
        let index = if map_index.is_mapped() { map_index.to_string() } else { String::new() };
        let mut all = vec![("map_index", index.as_str())];
        all.extend_from_slice(pairs);
        format!("{}{}", urls::task(dag_id, run_id, self.task_id), urls::query(&all))
    }

    fn crumbs(&self, map_index: MapIndex) -> Markup {
        let (dag_id, run_id) = (self.run.dag_id.as_str(), self.run.run_id.as_str());
        let mut steps = vec![
            ("DAGs", "/".to_owned()),
            (self.graph.dag.display_name.as_deref().unwrap_or(dag_id), urls::dag(dag_id)),
            (run_id, urls::run(dag_id, run_id)),
        ];
        if map_index.is_mapped() {
            steps.push((self.name(), urls::task(dag_id, run_id, self.task_id)));
        }
        crumbs(&steps)
    }
}

/// `GET /dags/{dag_id}/runs/{run_id}/tasks/{task_id}`.
pub(super) async fn page(
    State(state): State<AppState>,
    Extension(who): Extension<Identity>,
    Path((dag_id, run_id, task_id)): Path<(String, String, String)>,
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
    let now = tx.now().await?;
    let place = Place { run: &run, graph: &graph, task_id: &task_id, now };
    let id = TaskId::from(task_id.as_str());
    let index = MapIndex(asked.map_index.unwrap_or(-1));
    let (body, title) = match tx.task_instance_at(run.id, &id, index).await? {
        Some(row) => {
            let body = instance_page(&mut *tx, &place, &row, &asked).await?;
            let index = if index.is_mapped() { format!("[{index}]") } else { String::new() };
            (body, format!("{}{index} · {run_id}", place.name()))
        }
        None if !index.is_mapped() => {
            (mapped_page(&mut *tx, &place, &asked).await?, format!("{} · {run_id}", place.name()))
        }
        None => {
            return Err(PageError::NotFound(format!(
                "Task {task_id:?} has no instance {index} in run {run_id:?}."
            )));
        }
    };
    drop(tx);
    let events = format!("/events{}", urls::query(&[("dag_id", &dag_id), ("run_id", &run_id)]));
    let page =
        Page { title: &title, section: Section::Dags, events: Some(events), body, fixed: Markup::default() };
    Ok(respond(&headers, &who, &page))
}

fn actions(place: &Place<'_>, map_index: MapIndex) -> Markup {
    let (dag_id, run_id) = (place.run.dag_id.as_str(), place.run.run_id.as_str());
    let here = urls::task(dag_id, run_id, place.task_id);
    let index = if map_index.is_mapped() { map_index.to_string() } else { String::new() };
    let dialog = |which: &str, state: &str| {
        format!("{here}/{which}-dialog{}", urls::query(&[("state", state), ("map_index", &index)]))
    };
    html! {
        div.actions {
            button type="button" data-dialog-url=(dialog("clear", "")) { "↻ Clear" }
            button type="button" data-dialog-url=(dialog("mark", "success")) { "Mark success" }
            button type="button" data-dialog-url=(dialog("mark", "failed")) { "Mark failed" }
            button type="button" data-dialog-url=(dialog("mark", "skipped")) { "Mark skipped" }
        }
    }
}

async fn instance_page(
    tx: &mut dyn Tx,
    place: &Place<'_>,
    row: &TaskInstance,
    asked: &Asked,
) -> Result<Markup, PageError> {
    let earlier = tx.tries(row.id).await?;
    let last = row.try_number.max(earlier.last().map_or(0, |one| one.try_number));
    let shown = asked.try_number.unwrap_or(last);
    let shown_row =
        earlier.iter().find(|one| one.try_number == shown && shown != row.try_number).unwrap_or(row);
    let content = match asked.tab() {
        "xcom" => xcom_tab(tx, row).await?,
        "rendered" => rendered_tab(tx.rendered_fields(row.id).await?.as_ref()),
        "details" => details_tab(shown_row, place.task()),
        _ => log_tab(place, row, shown),
    };
    let index = row.map_index;
    let try_text = if shown == last { String::new() } else { shown.to_string() };
    Ok(html! {
        (place.crumbs(index))
        div.head {
            div.title {
                h1 {
                    (place.name())
                    @if index.is_mapped() { span.muted { " [" (row.rendered_map_index.as_deref().unwrap_or(&index.to_string())) "]" } }
                }
                (view::badge(row.state))
            }
            (actions(place, index))
        }
        (facts(place, row, shown_row))
        nav.tabs aria-label="Views" {
            @for (query, label) in TABS {
                a href=(place.address(index, &[("tab", query), ("try", &try_text)])) aria-current=[(query == asked.tab()).then_some("page")] { (label) }
            }
        }
        @if last > 1 && matches!(asked.tab(), "" | "details") {
            nav.filters aria-label="Tries" {
                div.pills {
                    @for number in 1..=last {
                        a href=(place.address(index, &[("tab", asked.tab()), ("try", &number.to_string())])) aria-current=[(number == shown).then_some("true")] {
                            @match earlier.iter().find(|one| one.try_number == number && number != row.try_number) {
                                Some(one) => { span.state.(one.state.class()) title=(one.state.name()) { "Try " (number) } },
                                None if number == row.try_number => { span.state.(row.state.class()) title=(row.state.name()) { "Try " (number) } },
                                None => { "Try " (number) },
                            }
                        }
                    }
                }
            }
        }
        (content)
    })
}

fn facts(place: &Place<'_>, row: &TaskInstance, shown: &TaskInstance) -> Markup {
    html! {
        dl.facts {
            div { dt { "Operator" } dd { (row.operator_name.as_deref().unwrap_or(&row.operator)) } }
            div { dt { "Try" } dd { (shown.try_number) " of " (row.max_tries + 1) } }
            div { dt { "Started" } dd { (view::time(shown.start_date)) } }
            div { dt { "Ended" } dd { (view::time(shown.end_date)) } }
            div { dt { "Duration" } dd { (view::took(shown.start_date, shown.end_date, place.now)) } }
            div { dt { "Host" } dd { (shown.hostname.as_deref().unwrap_or("–")) } }
            @if let Some(due) = row.due_at.filter(|_| !row.state.is_finished()) { div { dt { "Moves on" } dd { (view::relative(due, place.now)) } } }
            @if let Some(note) = &row.note { div { dt { "Note" } dd { (note) } } }
            @if let Some(reason) = &row.retry_reason { div { dt { "Retry policy" } dd { (reason) } } }
        }
    }
}

fn log_tab(place: &Place<'_>, row: &TaskInstance, shown: i32) -> Markup {
    let (dag_id, run_id) = (row.dag_id.as_str(), row.run_id.as_str());
    let index = if row.map_index.is_mapped() { row.map_index.to_string() } else { String::new() };
    let stream = format!(
        "{}/log-events{}",
        urls::task(dag_id, run_id, place.task_id),
        urls::query(&[("try", &shown.to_string()), ("map_index", &index)])
    );
    let raw = format!(
        "{}/taskInstances/{}/logs/{shown}{}",
        urls::api_run(dag_id, run_id),
        urls::encode(place.task_id),
        urls::query(&[("map_index", &index)])
    );
    html! {
        section.panel aria-label="Log" {
            @if shown < 1 { p.empty { "It has not run yet." } } @else {
                header data-keep data-key={ "tools-" (shown) } {
                    div.logtools {
                        input type="search" placeholder="Search in log  ( / )" aria-label="Search in log" data-log-search;
                        span.muted.small data-log-count role="status" {}
                    }
                    div.logtools {
                        label.check { input type="checkbox" checked data-log-follow; "Follow" }
                        a.button href=(raw) { "Raw" }
                    }
                }
                div.log data-keep data-key={ "log-" (shown) } data-log=(stream) tabindex="0" role="log" aria-label="Log lines" aria-live="off" {}
            }
        }
    }
}

async fn xcom_tab(tx: &mut dyn Tx, row: &TaskInstance) -> Result<Markup, PageError> {
    let filter = XComFilter {
        dag_id: Some(row.dag_id.clone()),
        run_id: Some(row.run_id.clone()),
        task_id: Some(row.task_id.clone()),
        map_index: Some(row.map_index),
        key: None,
    };
    let listing = tx.xcoms(&filter, MAX_XCOMS, 0).await?;
    Ok(html! {
        section.panel aria-label="XCom" {
            @if listing.items.is_empty() { p.empty { "It has left no XCom." } } @else {
                div.scroll {
                    table.list.values {
                        thead { tr { th { "Key" } th { "Value" } th.opt2 { "Written" } } }
                        tbody {
                            @for xcom in &listing.items { tr data-key=(xcom.key.key) {
                                td { code { (xcom.key.key) } }
                                td { (xcom_value(xcom)) }
                                td.opt2 { (view::time(Some(xcom.timestamp))) }
                            } }
                        }
                    }
                }
                @if listing.total > u64::from(MAX_XCOMS) { p.empty { "The first " (MAX_XCOMS) " of " (listing.total) "." } }
            }
        }
    })
}

fn xcom_value(xcom: &XCom) -> Markup {
    let text = serde_json::to_string_pretty(&xcom.value).unwrap_or_else(|_| xcom.value.to_string());
    let shown: String = text.chars().take(MAX_XCOM_CHARS).collect();
    html! {
        pre.json { (shown) }
        @if shown.len() < text.len() { span.muted.small { "cut; " (text.len()) " bytes in all" } }
    }
}

fn rendered_tab(fields: Option<&Value>) -> Markup {
    html! {
        section.panel aria-label="Rendered fields" {
            @match fields.and_then(Value::as_object).filter(|fields| !fields.is_empty()) {
                None => { p.empty { "Nothing was rendered yet." } },
                Some(fields) => {
                    table.kv {
                        @for (name, value) in fields {
                            tr { th scope="row" { code { (name) } } td {
                                @match value { Value::String(text) => { pre.json { (text) } }, other => { (view::json(other)) } }
                            } }
                        }
                    }
                }
            }
        }
    }
}

fn details_tab(row: &TaskInstance, task: Option<&Task>) -> Markup {
    let mut fields = match serde_json::to_value(row) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    // The lease's attempt is what fences writes; it is nobody's business outside.
    fields.remove("lease");
    html! {
        section.panel aria-label="Task instance" {
            header { h2 { "Task instance" } }
            table.kv {
                @for (name, value) in &fields {
                    tr { th scope="row" { (name) } td {
                        @match value {
                            Value::Null => { span.muted { "–" } },
                            Value::String(text) => { (text) },
                            Value::Object(_) | Value::Array(_) => { (view::json(value)) },
                            other => { (other) },
                        }
                    } }
                }
            }
        }
        @if let Some(task) = task {
            section.panel aria-label="Task" {
                header { h2 { "Task" } }
                table.kv {
                    tr { th scope="row" { "Trigger rule" } td { code { (task.trigger_rule.as_str()) } } }
                    tr { th scope="row" { "Owner" } td { (task.owner) } }
                    tr { th scope="row" { "Retries" } td { (task.retries) } }
                    tr { th scope="row" { "Class" } td { code { (task.task_module) "." (task.task_type) } } }
                    @for (name, value) in task.attributes.iter().filter(|(name, _)| name.starts_with("doc")) {
                        tr { th scope="row" { (name) } td { pre { (value.as_str().unwrap_or_default()) } } }
                    }
                }
            }
        }
    }
}

async fn mapped_page(tx: &mut dyn Tx, place: &Place<'_>, asked: &Asked) -> Result<Markup, PageError> {
    let number = view::page_number(asked.page.as_deref());
    let state = asked.state.as_deref().and_then(|state| state.parse::<TaskInstanceState>().ok());
    let filter = TaskInstanceFilter {
        dag_run_ids: vec![place.run.id],
        task_ids: vec![TaskId::from(place.task_id)],
        states: state.into_iter().collect(),
        ..TaskInstanceFilter::default()
    };
    let slice = Slice {
        limit: INSTANCES_PER_PAGE,
        offset: (number - 1) * INSTANCES_PER_PAGE,
        sort: vec![(TaskInstanceSort::MapIndex, Direction::Ascending)],
    };
    let listing = tx.task_instances(&filter, &slice).await?;
    let cells =
        reads::cells(tx, std::slice::from_ref(place.run)).await?.remove(&place.run.id).unwrap_or_default();
    let Some(cell) = cells.get(&TaskId::from(place.task_id)) else {
        return Err(PageError::NotFound(format!(
            "Run {:?} has no task {:?}, or not yet.",
            place.run.run_id.as_str(),
            place.task_id
        )));
    };
    let state_text = state.map_or("", |state| state.as_str());
    Ok(html! {
        (place.crumbs(MapIndex::UNMAPPED))
        div.head {
            div.title { h1 { (place.name()) span.muted { " [" (cell.total()) "]" } } (view::badge(cell.state())) (run::counts(cell)) }
            (actions(place, MapIndex::UNMAPPED))
        }
        div.filters {
            div.pills role="group" aria-label="State" {
                a href=(place.address(MapIndex::UNMAPPED, &[])) aria-current=[state.is_none().then_some("true")] { "All " b { (cell.total()) } }
                @for (one, count) in &cell.states {
                    a href=(place.address(MapIndex::UNMAPPED, &[("state", one.as_str())])) aria-current=[(state == Some(*one)).then_some("true")] { (view::state(*one)) " " b { (count) } }
                }
            }
        }
        section.panel aria-label="Mapped instances" {
            div.scroll {
                table.list {
                    thead { tr { th { "Index" } th { "State" } th.num { "Try" } th.opt2 { "Started" } th { "Duration" } th.opt { "Host" } } }
                    tbody {
                        @for row in &listing.items {
                            @let href = urls::instance(row.dag_id.as_str(), row.run_id.as_str(), place.task_id, row.map_index);
                            tr data-key=(row.id) data-href=(href) {
                                td { a.name href=(href) { (row.map_index) @if let Some(name) = &row.rendered_map_index { " · " (name) } } }
                                td { (view::state(row.state)) }
                                td.num { (row.try_number) }
                                td.opt2 { (view::time(row.start_date)) }
                                td { (view::took(row.start_date, row.end_date, place.now)) }
                                td.opt.small { (row.hostname.as_deref().unwrap_or_default()) }
                            }
                        }
                    }
                }
            }
            (view::pager(number, INSTANCES_PER_PAGE, listing.total, |page| place.address(MapIndex::UNMAPPED, &[("state", state_text), ("page", &page.to_string())])))
        }
    })
}
