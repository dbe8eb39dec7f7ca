//! The pages: rendered here, kept current by small scripts that fetch a page's content again when something changed.
//!
//! Every text that a DAG's author or a client chose goes through maud's escaping. Nothing is inline: colours are
//! classes, sizes are classes or SVG attributes, so that the strict Content-Security-Policy holds.

mod admin;
mod assets;
mod dag;
mod dags;
mod dialogs;
mod error;
mod gantt;
mod graph;
mod grid;
mod health;
mod import_errors;
mod layout;
mod log;
mod reads;
mod run;
mod shell;
mod static_files;
mod task;
#[cfg(test)]
mod tests;
mod urls;
mod view;

use axum::{Router, routing::get};

use crate::state::AppState;

/// All pages and what they load.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/", get(dags::page))
        .route("/import-errors", get(import_errors::page))
        .route("/dags/{dag_id}", get(dag::page))
        .route("/dags/{dag_id}/trigger-dialog", get(dialogs::trigger))
        .route("/dags/{dag_id}/runs/{run_id}", get(run::page))
        .route("/dags/{dag_id}/runs/{run_id}/note-dialog", get(dialogs::run_note))
        .route("/dags/{dag_id}/runs/{run_id}/clear-dialog", get(dialogs::clear_run))
        .route("/dags/{dag_id}/runs/{run_id}/mark-dialog", get(dialogs::mark_run))
        .route("/dags/{dag_id}/runs/{run_id}/tasks/{task_id}", get(task::page))
        .route("/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/clear-dialog", get(dialogs::clear_task))
        .route("/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/mark-dialog", get(dialogs::mark_task))
        .route("/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/log-events", get(log::events))
        .route("/pools", get(admin::pools))
        .route("/variables", get(admin::variables))
        .route("/connections", get(admin::connections))
        .route("/assets", get(assets::page))
        .route("/health", get(health::page))
        .route("/static/{*path}", get(static_files::serve))
}
