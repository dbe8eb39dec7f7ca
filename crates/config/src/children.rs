//! What of the environment user code may see.

use std::collections::BTreeMap;

use crate::resolve::{Resolved, airflow_variable};
use crate::sources::Origin;

/// Sections whose values are Gust's own affair and often hold its credentials: the metastore, the API's signing keys,
/// and the broker and result store of an executor that Gust does not have.
const WITHHELD_SECTIONS: [&str; 9] = [
    "API",
    "API_AUTH",
    "CELERY",
    "CELERY_KUBERNETES_EXECUTOR",
    "DATABASE",
    "EXECUTION_API",
    "FAB",
    "KUBERNETES_EXECUTOR",
    "WEBSERVER",
];

/// Single settings of that kind. Logs are shipped by the worker, which alone may write to the log store, so a child
/// that were told of remote logging would fail to reach it.
const WITHHELD_SETTINGS: [&str; 10] = [
    "CORE__ASSET_MANAGER_KWARGS",
    "CORE__EXECUTION_API_SERVER_URL",
    "CORE__FERNET_KEY",
    "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "CORE__SIMPLE_AUTH_MANAGER_USERS",
    "CORE__SQL_ALCHEMY_CONN",
    "ELASTICSEARCH__",
    "LOGGING__REMOTE_",
    "LOGGING__GOOGLE_KEY_PATH",
    "OPENSEARCH__",
];

/// Whether an environment variable of this name must not reach user code: all of Gust's own, and those of Airflow's
/// which carry credentials of the control plane, in their `_CMD`, `_SECRET` and per-team forms
/// (`AIRFLOW__TEAM___SECTION__KEY`) too.
#[must_use]
pub fn withheld_from_children(variable: &str) -> bool {
    let variable = variable.to_uppercase();
    if variable.starts_with("GUST__") {
        return true;
    }
    let Some(rest) = variable.strip_prefix("AIRFLOW__") else {
        return false;
    };
    let rest = rest.split_once("___").map_or(rest, |(_team, rest)| rest);
    let section = rest.split("__").next().unwrap_or(rest);
    WITHHELD_SECTIONS.contains(&section) || WITHHELD_SETTINGS.iter().any(|setting| rest.starts_with(setting))
}

/// The `AIRFLOW__` variables for user code: the inherited ones that are not withheld, and over them each setting that
/// the Python side reads too, so that a value from `gust.toml` holds there as well.
pub(crate) fn environment(env: &BTreeMap<String, String>, resolved: &[Resolved]) -> BTreeMap<String, String> {
    let mut children: BTreeMap<String, String> = env
        .iter()
        .filter(|(name, _)| name.starts_with("AIRFLOW__") && !withheld_from_children(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for Resolved { setting, text, origin, .. } in resolved.iter().filter(|value| value.setting.child) {
        let Some(variable) = setting.airflow.first().map(|name| airflow_variable(name)) else {
            continue;
        };
        if matches!(origin, Origin::Env(name) if name.starts_with("AIRFLOW__")) {
            // The child reads what Gust read, in the very form in which Airflow understands it.
            continue;
        }
        children.remove(&format!("{variable}_CMD"));
        children.remove(&format!("{variable}_SECRET"));
        if text.is_empty() {
            children.remove(&variable);
        } else {
            children.insert(variable, text.clone());
        }
    }
    children
}
