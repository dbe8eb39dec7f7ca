//! `/pools`, `/variables`, `/connections`: lists, with dialogs that add, change and remove. Secrets are never shown.

use axum::{
    Extension,
    extract::{Query, State},
    http::HeaderMap,
    response::Response,
};
use gust_model::record::{ConnectionRecord, DEFAULT_POOL, Pool, PoolUsage, VariableRecord};
use gust_ports::metastore::TxMode;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::{
    error::PageError,
    shell::{Page, Section, respond},
    urls,
    view::{self, Stated as _},
};
use crate::{
    auth::{Identity, Role},
    state::AppState,
};

const PER_PAGE: u32 = 50;

/// What a list was asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    q: Option<String>,
    page: Option<String>,
}

impl Asked {
    fn text(&self) -> &str {
        self.q.as_deref().unwrap_or_default().trim()
    }

    fn number(&self) -> u32 {
        view::page_number(self.page.as_deref())
    }

    fn offset(&self) -> u32 {
        (self.number() - 1) * PER_PAGE
    }
}

fn head(title: &str, button: &str, dialog: &str) -> Markup {
    html! {
        div.head {
            div.title { h1 { (title) } }
            div.actions { button.primary type="button" data-dialog=(dialog) data-fill="{}" { (button) } }
        }
    }
}

fn search(action: &str, asked: &Asked, label: &str) -> Markup {
    html! {
        form.filters method="get" action=(action) role="search" {
            input type="search" name="q" value=(asked.text()) placeholder={ (label) "  ( / )" } aria-label=(label);
        }
    }
}

/// A dialog around a form that sends to the API.
fn dialog(id: &str, method: &str, path: &str, title: &str, fields: &Markup, button: &str) -> Markup {
    html! {
        dialog #(id) {
            form data-method=(method) data-path=(path) data-done="Saved" autocomplete="off" {
                h2 { (title) }
                (fields)
                output.error hidden role="alert" {}
                footer { button type="button" data-close { "Cancel" } button.primary type="submit" { (button) } }
            }
        }
    }
}

fn removal(id: &str, path: &str, what: &str, name: &str) -> Markup {
    html! {
        dialog #(id) {
            form data-method="DELETE" data-path=(path) data-done="Removed" {
                h2 { "Remove this " (what) "?" }
                label.field { span { "Name" } input name=(name) readonly; }
                output.error hidden role="alert" {}
                footer { button type="button" data-close { "Cancel" } button.bad type="submit" { "Remove" } }
            }
        }
    }
}

fn row_buttons(edit: &str, fill: &serde_json::Value, remove: Option<&str>, name: &str) -> Markup {
    html! {
        td.num.nowrap {
            button.quiet type="button" data-dialog=(edit) data-fill=(fill) aria-label={ "Change " (name) } { "Edit" }
            @if let Some(remove) = remove {
                button.quiet.bad type="button" data-dialog=(remove) data-fill=(fill) aria-label={ "Remove " (name) } { "Remove" }
            }
        }
    }
}

fn answer(
    headers: &HeaderMap,
    who: &Identity,
    title: &str,
    section: Section,
    body: Markup,
    fixed: Markup,
) -> Response {
    // Pools' usage moves with every task; the others change only when somebody changes them.
    let events = (section == Section::Pools).then(|| "/events".to_owned());
    respond(headers, who, &Page { title, section, events, body, fixed })
}

/// What only administrators may see is not listed for others.
fn forbidden(who: &Identity) -> Result<(), PageError> {
    if who.role == Role::Admin {
        Ok(())
    } else {
        Err(PageError::NotFound("Only an administrator may look at this.".into()))
    }
}

/// `GET /pools`.
pub(super) async fn pools(
    State(state): State<AppState>,
    Extension(who): Extension<Identity>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let pools = tx.pools().await?;
    let usage = tx.pool_usage().await?;
    drop(tx);
    let used = |pool: &Pool| {
        usage.iter().find(|(name, _)| *name == pool.name).map(|(_, usage)| *usage).unwrap_or_default()
    };
    let body = html! {
        (head("Pools", "Add a pool", "add-pool"))
        section.panel aria-label="Pools" {
            div.scroll {
                table.list {
                    thead { tr { th { "Pool" } th { "Slots" } th.opt2 { "Use" } th.num { "Running" } th.num { "Queued" } th.num.opt2 { "Scheduled" } th.num.opt { "Deferred" } th { span.visually-hidden { "Actions" } } } }
                    tbody { @for pool in &pools { (pool_row(pool, used(pool))) } }
                }
            }
        }
    };
    let fields = |is_new: bool| {
        html! {
            label.field { span { "Name" } input name="name" required maxlength="256" readonly[!is_new] data-kind=[(!is_new).then_some("path")]; }
            label.field { span { "Slots (−1 for no limit)" } input name="slots" type="number" min="-1" required data-kind="int"; }
            label.field { span { "Description" } input name="description"; }
            label.check { input type="checkbox" name="include_deferred"; "Deferred task instances keep their slots" }
        }
    };
    let fixed = html! {
        (dialog("add-pool", "POST", "/api/v2/pools", "Add a pool", &fields(true), "Add"))
        (dialog("edit-pool", "PATCH", "/api/v2/pools/{name}", "Change pool", &fields(false), "Save"))
        (removal("remove-pool", "/api/v2/pools/{name}", "pool", "name"))
    };
    Ok(answer(&headers, &who, "Pools", Section::Pools, body, fixed))
}

fn pool_row(pool: &Pool, usage: PoolUsage) -> Markup {
    let name = pool.name.as_str();
    let fill = json!({
        "name": name, "slots": pool.slots, "description": pool.description.as_deref().unwrap_or_default(),
        "include_deferred": pool.include_deferred,
    });
    html! {
        tr data-key=(name) {
            td { span.name { (name) } @if let Some(text) = &pool.description { div.desc title=(text) { (text) } } }
            td.nowrap { @if pool.slots < 0 { "no limit" } @else { (pool.slots) } }
            td.opt2.ganttcell { (usage_bar(pool, usage)) }
            td.num { (usage.running) }
            td.num { (usage.queued) }
            td.num.opt2 { (usage.scheduled) }
            td.num.opt { (usage.deferred) }
            (row_buttons("edit-pool", &fill, (name != DEFAULT_POOL).then_some("remove-pool"), name))
        }
    }
}

fn usage_bar(pool: &Pool, usage: PoolUsage) -> Markup {
    use gust_model::TaskInstanceState as S;
    let deferred = if pool.include_deferred { usage.deferred } else { 0 };
    let parts = [(S::Running, usage.running), (S::Queued, usage.queued), (S::Deferred, deferred)];
    let held: i64 = parts.iter().map(|(_, count)| count).sum();
    let slots = i64::from(pool.slots).max(held).max(1);
    let mut x = 0;
    let bars: Vec<(S, i64, i64)> = parts
        .into_iter()
        .map(|(state, count)| {
            let width = count * 1000 / slots;
            let bar = (state, x, width);
            x += width;
            bar
        })
        .collect();
    html! {
        svg.gantt viewBox="0 0 1000 14" preserveAspectRatio="none" role="img" aria-label={ (held) " slots held" } {
            rect.track x="0" y="2" width="1000" height="10" {}
            @for (state, x, width) in bars { g.(state.class()) { rect x=(x) y="2" width=(width) height="10" {} } }
        }
    }
}

/// `GET /variables`.
pub(super) async fn variables(
    State(state): State<AppState>,
    Extension(who): Extension<Identity>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    forbidden(&who)?;
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let listing = tx.variables(asked.text(), PER_PAGE, asked.offset()).await?;
    drop(tx);
    let body = html! {
        (head("Variables", "Add a variable", "add-variable"))
        (search("/variables", &asked, "Search by the key's beginning"))
        section.panel aria-label="Variables" {
            @if listing.items.is_empty() { p.empty { "No variables." } } @else {
                div.scroll { table.list {
                    thead { tr { th { "Key" } th { "Value" } th.opt2 { "Description" } th { span.visually-hidden { "Actions" } } } }
                    tbody { @for variable in &listing.items { (variable_row(variable)) } }
                } }
            }
            (view::pager(asked.number(), PER_PAGE, listing.total, |page| format!("/variables{}", urls::query(&[("q", asked.text()), ("page", &page.to_string())]))))
        }
    };
    let fields = |is_new: bool| {
        html! {
            label.field { span { "Key" } input name="key" required maxlength="250" readonly[!is_new]; }
            label.field {
                span { @if is_new { "Value" } @else { "New value (the old one is not shown)" } }
                textarea name="value" rows="5" required spellcheck="false" {}
            }
            label.field { span { "Description" } input name="description"; }
        }
    };
    let fixed = html! {
        (dialog("add-variable", "POST", "/api/v2/variables", "Add a variable", &fields(true), "Add"))
        (dialog("edit-variable", "PATCH", "/api/v2/variables/{key}", "Change variable", &fields(false), "Save"))
        (removal("remove-variable", "/api/v2/variables/{key}", "variable", "key"))
    };
    Ok(answer(&headers, &who, "Variables", Section::Variables, body, fixed))
}

fn variable_row(variable: &VariableRecord) -> Markup {
    let key = variable.key.as_str();
    let description = variable.description.as_deref().unwrap_or_default();
    html! {
        tr data-key=(key) {
            td { code.name { (key) } }
            td { span.muted title="Values are sealed and never shown" { "••••••" } }
            td.opt2 { (description) }
            (row_buttons("edit-variable", &json!({ "key": key, "description": description }), Some("remove-variable"), key))
        }
    }
}

/// `GET /connections`.
pub(super) async fn connections(
    State(state): State<AppState>,
    Extension(who): Extension<Identity>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    forbidden(&who)?;
    let mut tx = state.metastore.begin(TxMode::Read).await?;
    let listing = tx.connections(asked.text(), PER_PAGE, asked.offset()).await?;
    drop(tx);
    let body = html! {
        (head("Connections", "Add a connection", "add-connection"))
        (search("/connections", &asked, "Search by id"))
        section.panel aria-label="Connections" {
            @if listing.items.is_empty() { p.empty { "No connections." } } @else {
                div.scroll { table.list {
                    thead { tr { th { "Connection" } th { "Type" } th.opt2 { "Host" } th.opt2 { "Schema" } th.opt { "Login" } th.opt { "Sealed" } th { span.visually-hidden { "Actions" } } } }
                    tbody { @for connection in &listing.items { (connection_row(connection)) } }
                } }
            }
            (view::pager(asked.number(), PER_PAGE, listing.total, |page| format!("/connections{}", urls::query(&[("q", asked.text()), ("page", &page.to_string())]))))
        }
    };
    let fields = |is_new: bool| {
        html! {
            div.row {
                label.field { span { "Id" } input name="connection_id" required maxlength="200" readonly[!is_new]; }
                label.field { span { "Type" } input name="conn_type" required; }
            }
            label.field { span { "Description" } input name="description" data-kind="opt"; }
            div.row {
                label.field { span { "Host" } input name="host" data-kind="opt"; }
                label.field { span { "Port" } input name="port" type="number" min="0" max="65535" data-kind="int"; }
            }
            div.row {
                label.field { span { "Login" } input name="login" data-kind="opt"; }
                label.field { span { "Schema" } input name="schema" data-kind="opt"; }
            }
            label.field { span { @if is_new { "Password" } @else { "New password (empty: unchanged)" } } input name="password" type="password" data-kind="skip" autocomplete="new-password"; }
            label.field { span { @if is_new { "Extra (JSON)" } @else { "New extra (JSON; empty: unchanged)" } } textarea name="extra" rows="4" data-kind="skip" spellcheck="false" {} }
        }
    };
    let fixed = html! {
        (dialog("add-connection", "POST", "/api/v2/connections", "Add a connection", &fields(true), "Add"))
        (edit_connection(&fields(false)))
        (removal("remove-connection", "/api/v2/connections/{connection_id}", "connection", "connection_id"))
    };
    Ok(answer(&headers, &who, "Connections", Section::Connections, body, fixed))
}

/// Only what was filled in is changed; the mask tells the API so, since a password left empty stays.
fn edit_connection(fields: &Markup) -> Markup {
    html! {
        dialog #edit-connection {
            form data-method="PATCH" data-path="/api/v2/connections/{connection_id}" data-mask data-done="Saved" autocomplete="off" {
                h2 { "Change connection" }
                (fields)
                output.error hidden role="alert" {}
                footer { button type="button" data-close { "Cancel" } button.primary type="submit" { "Save" } }
            }
        }
    }
}

fn connection_row(connection: &ConnectionRecord) -> Markup {
    let id = connection.conn_id.as_str();
    let fill = json!({
        "connection_id": id, "conn_type": connection.conn_type, "description": connection.description,
        "host": connection.host, "port": connection.port, "login": connection.login, "schema": connection.schema,
    });
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    html! {
        tr data-key=(id) {
            td { span.name { (id) } @if let Some(text) = &connection.description { div.desc title=(text) { (text) } } }
            td { (connection.conn_type) }
            td.opt2 { (text(&connection.host)) @if let Some(port) = connection.port { ":" (port) } }
            td.opt2 { (text(&connection.schema)) }
            td.opt { (text(&connection.login)) }
            td.opt.muted.small {
                @if connection.sealed_password.is_some() { "password " }
                @if connection.sealed_extra.is_some() { "extra" }
            }
            (row_buttons("edit-connection", &fill, Some("remove-connection"), id))
        }
    }
}
