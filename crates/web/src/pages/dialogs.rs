//! Dialogs that a script fetches and shows: what they send goes to the REST API.

use axum::extract::{Path, Query, State};
use gust_model::{DagId, DagRunState, RunId, TaskInstanceState};
use gust_operations::{Param, dag_params, latest_dag};
use gust_ports::metastore::TxMode;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{error::PageError, urls};
use crate::state::AppState;

/// What a dialog is about.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    state: Option<String>,
    map_index: Option<i32>,
}

fn buttons(label: &str) -> Markup {
    html! {
        output.error hidden role="alert" {}
        footer {
            button type="button" data-close { "Cancel" }
            button.primary type="submit" { (label) }
        }
    }
}

fn check(name: &str, label: &str, is_on: bool) -> Markup {
    html! { label.check { input type="checkbox" name=(name) checked[is_on]; (label) } }
}

/// Whether a run must be given a value: there is no default, or it is a null that the schema does not allow.
fn is_required(param: &Param) -> bool {
    match &param.default {
        None => true,
        Some(Value::Null) => match param.schema.get("type") {
            Some(Value::String(name)) => name != "null",
            Some(Value::Array(names)) => !names.iter().any(|name| name == "null"),
            _ => false,
        },
        Some(_) => false,
    }
}

/// Which types a param takes, as its schema names them.
fn types(param: &Param) -> String {
    match param.schema.get("type") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any value".to_owned(),
    }
}

/// What must be given, and what the params mean.
fn meanings(params: &[Param]) -> Markup {
    let required: Vec<&Param> = params.iter().filter(|param| is_required(param)).collect();
    let described: Vec<&Param> =
        params.iter().filter(|param| !is_required(param) && param.description.is_some()).collect();
    html! {
        @if !required.is_empty() {
            div.small {
                b { "To be given:" }
                ul.plain { @for param in &required {
                    li { code { (param.name) } " (" (types(param)) ")" @if let Some(text) = &param.description { ": " (text) } }
                } }
            }
        }
        @if !described.is_empty() {
            details {
                summary.small { "What the params mean" }
                dl.small { @for param in &described { dt { code { (param.name) } } dd { (param.description.as_deref().unwrap_or_default()) } } }
            }
        }
    }
}

/// `GET /dags/{dag_id}/trigger-dialog`.
pub(super) async fn trigger(
    State(state): State<AppState>,
    Path(dag_id): Path<String>,
) -> Result<Markup, PageError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let (record, dag) = latest_dag(&mut *tx, &DagId::from(dag_id.as_str()))
        .await?
        .ok_or_else(|| PageError::no_dag(&dag_id))?;
    drop(tx);
    let params = dag_params(&dag);
    let defaults: Map<String, Value> = params
        .iter()
        .filter(|param| !is_required(param))
        .filter_map(|param| Some((param.name.clone(), param.default.clone()?)))
        .collect();
    let conf = serde_json::to_string_pretty(&defaults).unwrap_or_else(|_| "{}".to_owned());
    let rows = (conf.lines().count() + 1).clamp(4, 16);
    let then = format!("{}/runs/{{dag_run_id}}", urls::dag(&dag_id));
    Ok(html! {
        form data-method="POST" data-path={ (urls::api_dag(&dag_id)) "/dagRuns" } data-then=(then) {
            h2 { "Trigger " (record.dag_display_name.as_deref().unwrap_or(&dag_id)) }
            @if record.is_paused { p.muted.small { "The DAG is paused: the run waits until it is unpaused." } }
            label.field {
                span { "Configuration (JSON)" }
                textarea name="conf" data-kind="json" rows=(rows) spellcheck="false" { (conf) }
            }
            (meanings(&params))
            div.row {
                label.field { span { "Logical date (UTC; empty for none)" } input type="datetime-local" step="1" name="logical_date" data-kind="date"; }
                label.field { span { "Run id (empty for a generated one)" } input name="dag_run_id" data-kind="skip" autocomplete="off"; }
            }
            label.field { span { "Note" } input name="note" data-kind="skip"; }
            (buttons("Trigger"))
        }
    })
}

/// `GET /dags/{dag_id}/runs/{run_id}/note-dialog`.
pub(super) async fn run_note(
    State(state): State<AppState>,
    Path((dag_id, run_id)): Path<(String, String)>,
) -> Result<Markup, PageError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let run = tx
        .dag_run(&DagId::from(dag_id.as_str()), &RunId::from(run_id.as_str()))
        .await?
        .ok_or_else(|| PageError::no_run(&dag_id, &run_id))?;
    drop(tx);
    Ok(html! {
        form data-method="PATCH" data-path=(urls::api_run(&dag_id, &run_id)) data-done="Note saved" {
            h2 { "Note" }
            label.field { span { "For everybody who looks at this run" } textarea name="note" rows="5" { (run.note.as_deref().unwrap_or_default()) } }
            (buttons("Save"))
        }
    })
}

/// `GET /dags/{dag_id}/runs/{run_id}/clear-dialog`.
pub(super) async fn clear_run(Path((dag_id, run_id)): Path<(String, String)>) -> Markup {
    html! {
        form data-method="POST" data-path={ (urls::api_run(&dag_id, &run_id)) "/clear" } data-body="{\"dry_run\":false}" data-done="Cleared" {
            h2 { "Clear run" }
            p.muted { code { (run_id) } }
            p { "Its task instances run again; the run goes back to the queue." }
            div.checks { (check("only_failed", "Only failed tasks", false)) }
            div.preview aria-live="polite" { "…" }
            (buttons("Clear"))
        }
    }
}

/// `GET /dags/{dag_id}/runs/{run_id}/mark-dialog?state=`.
pub(super) async fn mark_run(
    Path((dag_id, run_id)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Markup, PageError> {
    let Some(Ok(state @ (DagRunState::Success | DagRunState::Failed))) =
        asked.state.as_deref().map(str::parse::<DagRunState>)
    else {
        return Err(PageError::BadAddress("state must be success or failed".into()));
    };
    Ok(html! {
        form data-method="PATCH" data-path=(urls::api_run(&dag_id, &run_id)) data-body=(json!({ "state": state.as_str() })) data-done={ "Marked " (state) } {
            h2 { "Mark run as " (state) }
            p.muted { code { (run_id) } }
            p { "What runs is ended, what has not run is skipped." }
            (buttons("Mark"))
        }
    })
}

fn of_task(task_id: &str, map_index: Option<i32>) -> Value {
    match map_index {
        Some(index) if index >= 0 => json!([task_id, index]),
        _ => json!(task_id),
    }
}

fn relatives() -> Markup {
    html! {
        div.checks {
            (check("include_upstream", "Upstream", false))
            (check("include_downstream", "Downstream", false))
            (check("include_past", "Past", false))
            (check("include_future", "Future", false))
        }
    }
}

/// `GET …/tasks/{task_id}/clear-dialog?map_index=`.
pub(super) async fn clear_task(
    Path((dag_id, run_id, task_id)): Path<(String, String, String)>,
    Query(asked): Query<Asked>,
) -> Markup {
    let body = json!({
        "dry_run": false,
        "dag_run_id": run_id,
        "task_ids": [of_task(&task_id, asked.map_index)],
        "reset_dag_runs": true,
    });
    html! {
        form data-method="POST" data-path={ (urls::api_dag(&dag_id)) "/clearTaskInstances" } data-body=(body) data-done="Cleared" {
            h2 { "Clear " (task_id) @if let Some(index) = asked.map_index.filter(|index| *index >= 0) { " [" (index) "]" } }
            div.checks {
                (check("include_upstream", "Upstream", false))
                (check("include_downstream", "Downstream", true))
                (check("include_past", "Past", false))
                (check("include_future", "Future", false))
                (check("only_failed", "Only failed", false))
            }
            div.preview aria-live="polite" { "…" }
            (buttons("Clear"))
        }
    }
}

/// `GET …/tasks/{task_id}/mark-dialog?state=&map_index=`.
pub(super) async fn mark_task(
    Path((dag_id, run_id, task_id)): Path<(String, String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Markup, PageError> {
    use TaskInstanceState as S;
    let Some(Ok(state @ (S::Success | S::Failed | S::Skipped))) = asked.state.as_deref().map(str::parse::<S>)
    else {
        return Err(PageError::BadAddress("state must be success, failed or skipped".into()));
    };
    let base = format!("{}/taskInstances/{}", urls::api_run(&dag_id, &run_id), urls::encode(&task_id));
    let path = match asked.map_index {
        Some(index) if index >= 0 => format!("{base}/{index}"),
        _ => base,
    };
    Ok(html! {
        form data-method="PATCH" data-path=(path) data-preview={ (path) "/dry_run" } data-body=(json!({ "new_state": state.as_str() })) data-done={ "Marked " (state) } {
            h2 { "Mark " (task_id) " as " (state) }
            (relatives())
            div.preview aria-live="polite" { "…" }
            (buttons("Mark"))
        }
    })
}
