use gust_model::dag::Dag;
use serde_json::{Map, Value};

use crate::OperationError;

/// A DAG's parameter (`airflow/serialization/definitions/param.py: SerializedParam`).
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its default; absent if a value must be given.
    pub default: Option<Value>,
    /// What it is for.
    pub description: Option<String>,
    /// Its JSON schema.
    pub schema: Value,
    /// Where it was defined (`dag`, `task`), where the SDK says so.
    pub source: Option<String>,
}

/// Undoes the SDK's envelope of a dict or tuple; other values stand for themselves.
fn unwrap(value: &Value) -> Value {
    match value {
        Value::Object(fields) => match (fields.get("__type").and_then(Value::as_str), fields.get("__var")) {
            (Some("dict" | "tuple" | "set"), Some(inner)) => unwrap(inner),
            _ => Value::Object(fields.iter().map(|(key, value)| (key.clone(), unwrap(value))).collect()),
        },
        Value::Array(items) => Value::Array(items.iter().map(unwrap).collect()),
        other => other.clone(),
    }
}

/// The parameters of a DAG, in its author's order.
#[must_use]
pub fn dag_params(dag: &Dag) -> Vec<Param> {
    let pairs: Vec<(String, &Value)> = match &dag.params {
        Value::Array(items) => {
            items.iter().filter_map(|item| Some((item.get(0)?.as_str()?.to_owned(), item.get(1)?))).collect()
        }
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
        _ => Vec::new(),
    };
    pairs.into_iter().map(|(name, value)| param(name, value)).collect()
}

fn param(name: String, value: &Value) -> Param {
    if value.get("__class").is_none() {
        return Param {
            name,
            default: Some(unwrap(value)),
            description: None,
            schema: Value::Object(Map::new()),
            source: None,
        };
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let default = value
        .get("default")
        .filter(|default| default.get("__type").and_then(Value::as_str) != Some("arg_not_set"))
        .map(unwrap);
    Param {
        name,
        default,
        description: text("description"),
        schema: value.get("schema").map_or_else(|| Value::Object(Map::new()), unwrap),
        source: text("source"),
    }
}

/// Checks what a trigger gives against the DAG's parameters: that each has a value and that it is of a type and a
/// choice which its schema allows. The SDK checks the whole schema when a task starts.
pub(crate) fn check_conf(dag: &Dag, conf: &Value) -> Result<(), OperationError> {
    if !(conf.is_null() || conf.is_object()) {
        return Err(OperationError::Refused("DagRun conf must be a JSON object or null".into()));
    }
    for param in dag_params(dag) {
        let refuse = |why: String| {
            Err(OperationError::Refused(format!("Invalid input for param {}: {why}", param.name)))
        };
        let Some(value) = conf.get(&param.name).or(param.default.as_ref()) else {
            return refuse("No value passed".into());
        };
        if let Some(why) = violation(value, &param.schema) {
            return refuse(why);
        }
    }
    Ok(())
}

fn violation(value: &Value, schema: &Value) -> Option<String> {
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is_of(value, name)) {
        let known: Vec<String> = types.iter().map(|name| format!("'{name}'")).collect();
        return Some(format!("{value} is not of type {}", known.join(", ")));
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array)
        && !choices.contains(value)
    {
        return Some(format!("{value} is not one of {}", Value::Array(choices.clone())));
    }
    if let (Some(number), Some(minimum)) = (value.as_f64(), schema.get("minimum").and_then(Value::as_f64))
        && number < minimum
    {
        return Some(format!("{value} is less than the minimum of {minimum}"));
    }
    if let (Some(number), Some(maximum)) = (value.as_f64(), schema.get("maximum").and_then(Value::as_f64))
        && number > maximum
    {
        return Some(format!("{value} is greater than the maximum of {maximum}"));
    }
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        if schema.get("minLength").and_then(Value::as_u64).is_some_and(|least| length < least) {
            return Some(format!("{value} is too short"));
        }
        if schema.get("maxLength").and_then(Value::as_u64).is_some_and(|most| length > most) {
            return Some(format!("{value} is too long"));
        }
    }
    None
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        // JSON schema takes 3.0 for an integer as well.
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        _ => true,
    }
}
