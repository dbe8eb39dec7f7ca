//! Addresses of pages and of the API, every id percent-encoded as a segment of its own.

use std::fmt::Write as _;

use gust_model::MapIndex;

/// Text as one segment of a path.
pub(super) fn encode(text: &str) -> String {
    encode_except(text, b"-_.~:@!*+")
}

fn encode_except(text: &str, plain: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

pub(super) fn dag(dag_id: &str) -> String {
    format!("/dags/{}", encode(dag_id))
}

pub(super) fn run(dag_id: &str, run_id: &str) -> String {
    format!("/dags/{}/runs/{}", encode(dag_id), encode(run_id))
}

pub(super) fn task(dag_id: &str, run_id: &str, task_id: &str) -> String {
    format!("/dags/{}/runs/{}/tasks/{}", encode(dag_id), encode(run_id), encode(task_id))
}

pub(super) fn instance(dag_id: &str, run_id: &str, task_id: &str, map_index: MapIndex) -> String {
    let task = task(dag_id, run_id, task_id);
    if map_index.is_mapped() { format!("{task}?map_index={map_index}") } else { task }
}

pub(super) fn api_dag(dag_id: &str) -> String {
    format!("/api/v2/dags/{}", encode(dag_id))
}

pub(super) fn api_run(dag_id: &str, run_id: &str) -> String {
    format!("/api/v2/dags/{}/dagRuns/{}", encode(dag_id), encode(run_id))
}

/// A query string from those pairs that have a value, with its question mark.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        out.push(if out.is_empty() { '?' } else { '&' });
        // A plus stands for a space in a query.
        let _ = write!(out, "{name}={}", encode_except(value, b"-_.~:@!*"));
    }
    out
}
