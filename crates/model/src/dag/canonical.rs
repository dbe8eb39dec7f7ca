//! One text for one meaning: what Airflow serializes from sets comes in any order, and where a file lies says nothing
//! about its graph, so both are evened out before hashing. Otherwise every parse would make a new DAG version.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Fields of the DAG that say where its file lies.
const PLACES: [&str; 2] = ["fileloc", "_processor_dags_folder"];

/// Fields whose lists Airflow makes from sets.
const SET_LIKE: [&str; 8] = [
    "tags",
    "downstream_task_ids",
    "upstream_task_ids",
    "upstream_group_ids",
    "downstream_group_ids",
    "allowed_run_types",
    "dag_dependencies",
    "_downstream_task_ids",
];

/// The serialized DAG with sorted keys and set-like lists, ordered lists as they are, without the file's place.
#[must_use]
pub fn canonical_json(serialized: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, &even_out(serialized, None, 0));
    text
}

/// Lower-case hex SHA-256 of [`canonical_json`].
#[must_use]
pub fn stable_hash(serialized: &Value) -> String {
    Sha256::digest(canonical_json(serialized).as_bytes()).iter().fold(
        String::with_capacity(64),
        |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        },
    )
}

/// Sorted keys whatever map `serde_json` was built with.
enum Canonical {
    Leaf(Value),
    List(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

fn even_out(value: &Value, field: Option<&str>, depth: usize) -> Canonical {
    match value {
        Value::Object(object) => {
            let is_set = matches!(object.get("__type").and_then(Value::as_str), Some("set" | "frozenset"));
            Canonical::Object(
                object
                    .iter()
                    // The DAG's own fields stand one level below the envelope.
                    .filter(|(key, _)| !(depth == 1 && PLACES.contains(&key.as_str())))
                    .map(|(key, inner)| {
                        let name = if is_set && key == "__var" { Some("tags") } else { Some(key.as_str()) };
                        (key.clone(), even_out(inner, name, depth + 1))
                    })
                    .collect(),
            )
        }
        Value::Array(items) => {
            let mut list: Vec<_> = items.iter().map(|item| even_out(item, None, depth + 1)).collect();
            if field.is_some_and(|name| SET_LIKE.contains(&name)) {
                list.sort_by_cached_key(|item| {
                    let mut text = String::new();
                    write_value(&mut text, item);
                    text
                });
            }
            Canonical::List(list)
        }
        leaf => Canonical::Leaf(leaf.clone()),
    }
}

fn write_value(text: &mut String, value: &Canonical) {
    match value {
        Canonical::Leaf(leaf) => {
            let _ = write!(text, "{leaf}");
        }
        Canonical::List(items) => {
            text.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    text.push(',');
                }
                write_value(text, item);
            }
            text.push(']');
        }
        Canonical::Object(object) => {
            text.push('{');
            for (position, (key, inner)) in object.iter().enumerate() {
                if position > 0 {
                    text.push(',');
                }
                let _ = write!(text, "{}:", Value::String(key.clone()));
                write_value(text, inner);
            }
            text.push('}');
        }
    }
}
