//! What a request gives, checked against one description of it. The errors are FastAPI's, since clients show them.

use std::collections::BTreeMap;

use gust_model::record::Timestamp;
use serde_json::{Map, Value, json};

use crate::{error::ApiError, time};

/// What a value must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Text of at most so many characters.
    Text(usize),
    /// A whole number, not below the first.
    Int(i64),
    /// True or false.
    Flag,
    /// A moment; without offset it is UTC.
    Time,
    /// A moment which must have an offset.
    AwareTime,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list.
    List(&'static Kind),
    /// An object.
    Object,
    /// A task id, or a task id and a map index.
    TaskRef,
    /// Any JSON.
    Any,
}

/// Text as long as the body allows.
pub(crate) const TEXT: Kind = Kind::Text(usize::MAX);

/// A named value of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub is_required: bool,
    pub default: Preset,
}

/// What stands where nothing is given.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Preset {
    Absent,
    Int(i64),
    Flag(bool),
}

/// A value that may be left out or null.
pub(crate) const fn optional(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, is_required: false, default: Preset::Absent }
}

/// A value that must be given, though it may be null where the kind says so at its use.
pub(crate) const fn required(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, is_required: true, default: Preset::Absent }
}

/// A flag with its default.
pub(crate) const fn flag(name: &'static str, default: bool) -> Field {
    Field { name, kind: Kind::Flag, is_required: false, default: Preset::Flag(default) }
}

/// A number with its least value and its default.
pub(crate) const fn int(name: &'static str, least: i64, default: i64) -> Field {
    Field { name, kind: Kind::Int(least), is_required: false, default: Preset::Int(default) }
}

/// Checked values by name. What was not given and has no default is absent; so is null.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    values: Map<String, Value>,
    given: Vec<String>,
}

impl Inputs {
    /// Reads a query string's pairs.
    pub(crate) fn from_query(fields: &[Field], pairs: &[(String, String)]) -> Result<Self, ApiError> {
        let mut errors = Vec::new();
        let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in pairs {
            if fields.iter().any(|field| field.name == name) {
                by_name.entry(name).or_default().push(value);
            } else {
                // FastAPI would ignore it; a filter that is ignored answers another question than the one asked.
                errors.push(problem(
                    "extra_forbidden",
                    &["query", name],
                    "Extra inputs are not permitted",
                    value,
                ));
            }
        }
        let mut inputs = Self::default();
        for field in fields {
            let Some(texts) = by_name.get(field.name) else {
                inputs.fill_in(field, "query", &Value::Null, &mut errors);
                continue;
            };
            let read = if let Kind::List(inner) = field.kind {
                texts
                    .iter()
                    .map(|text| from_text(*inner, text))
                    .collect::<Result<Vec<_>, _>>()
                    .map(Value::from)
            } else {
                // The last of several counts, as with FastAPI.
                from_text(field.kind, texts.last().copied().unwrap_or_default())
            };
            inputs.keep(field, "query", read, &mut errors);
        }
        inputs.done(errors)
    }

    /// Reads a JSON object.
    pub(crate) fn from_body(fields: &[Field], body: &Value) -> Result<Self, ApiError> {
        let Value::Object(given) = body else {
            let text = "Input should be a valid dictionary or object to extract fields from";
            return Err(ApiError::Invalid(vec![
                json!({"type": "model_attributes_type", "loc": ["body"], "msg": text, "input": body}),
            ]));
        };
        let mut errors = Vec::new();
        let mut inputs = Self::default();
        for field in fields {
            match given.get(field.name) {
                None => inputs.fill_in(field, "body", body, &mut errors),
                Some(Value::Null) => inputs.given.push(field.name.to_owned()),
                Some(value) => {
                    inputs.keep(field, "body", from_json(field.kind, value), &mut errors);
                }
            }
        }
        for name in given.keys().filter(|name| !fields.iter().any(|field| field.name == name.as_str())) {
            let text = "Extra inputs are not permitted";
            errors.push(
                json!({"type": "extra_forbidden", "loc": ["body", name], "msg": text, "input": given[name]}),
            );
        }
        inputs.done(errors)
    }

    fn fill_in(&mut self, field: &Field, place: &str, input: &Value, errors: &mut Vec<Value>) {
        match field.default {
            Preset::Absent if field.is_required => errors.push(
                json!({"type": "missing", "loc": [place, field.name], "msg": "Field required", "input": input}),
            ),
            Preset::Absent => {}
            Preset::Int(value) => {
                self.values.insert(field.name.to_owned(), json!(value));
            }
            Preset::Flag(value) => {
                self.values.insert(field.name.to_owned(), json!(value));
            }
        }
    }

    fn keep(&mut self, field: &Field, place: &str, read: Result<Value, Problem>, errors: &mut Vec<Value>) {
        self.given.push(field.name.to_owned());
        match read {
            Ok(value) => {
                self.values.insert(field.name.to_owned(), value);
            }
            Err(problem) => errors.push(
                json!({"type": problem.kind, "loc": [place, field.name], "msg": problem.text, "input": problem.input}),
            ),
        }
    }

    fn done(self, errors: Vec<Value>) -> Result<Self, ApiError> {
        if errors.is_empty() { Ok(self) } else { Err(ApiError::Invalid(errors)) }
    }

    /// Whether it was given, be it as null.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|given| given == name)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_str()
    }

    pub(crate) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.values.get(name)?.as_i64()
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.flag(name) == Some(true)
    }

    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.values.get(name)?.as_bool()
    }

    pub(crate) fn time(&self, name: &str) -> Option<Timestamp> {
        time::parse(self.text(name)?).map(|read| read.at)
    }

    pub(crate) fn list(&self, name: &str) -> &[Value] {
        self.values.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// A list of texts; nulls in it are left out.
    pub(crate) fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.list(name).iter().filter_map(Value::as_str)
    }
}

struct Problem {
    kind: &'static str,
    text: String,
    input: Value,
}

fn problem(kind: &str, loc: &[&str], text: &str, input: &str) -> Value {
    json!({"type": kind, "loc": loc, "msg": text, "input": input})
}

fn from_text(kind: Kind, text: &str) -> Result<Value, Problem> {
    let fail = |kind: &'static str, message: &str| {
        Err(Problem { kind, text: message.to_owned(), input: json!(text) })
    };
    match kind {
        Kind::Int(_) => match text.trim().parse::<i64>() {
            Ok(number) => from_json(kind, &json!(number)).map_err(|mut problem| {
                problem.input = json!(text);
                problem
            }),
            Err(_) => {
                fail("int_parsing", "Input should be a valid integer, unable to parse string as an integer")
            }
        },
        Kind::Flag => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" | "t" | "y" => Ok(json!(true)),
            "false" | "0" | "no" | "off" | "f" | "n" => Ok(json!(false)),
            _ => fail("bool_parsing", "Input should be a valid boolean, unable to interpret input"),
        },
        _ => from_json(kind, &json!(text)),
    }
}

fn from_json(kind: Kind, value: &Value) -> Result<Value, Problem> {
    let fail = |kind: &'static str, text: String| Err(Problem { kind, text, input: value.clone() });
    match kind {
        Kind::Any => Ok(value.clone()),
        Kind::Object if value.is_object() => Ok(value.clone()),
        Kind::Object => fail("dict_type", "Input should be a valid dictionary".into()),
        Kind::Text(most) => match value.as_str() {
            None => fail("string_type", "Input should be a valid string".into()),
            Some(text) if text.chars().count() > most => {
                fail("string_too_long", format!("String should have at most {most} characters"))
            }
            Some(_) => Ok(value.clone()),
        },
        Kind::Int(least) => match value.as_i64() {
            None => fail("int_type", "Input should be a valid integer".into()),
            Some(number) if number < least => {
                fail("greater_than_equal", format!("Input should be greater than or equal to {least}"))
            }
            Some(_) => Ok(value.clone()),
        },
        Kind::Flag if value.is_boolean() => Ok(value.clone()),
        Kind::Flag => fail("bool_type", "Input should be a valid boolean".into()),
        Kind::Time | Kind::AwareTime => match value.as_str().map(time::parse) {
            None => fail("datetime_type", "Input should be a valid datetime".into()),
            Some(None) => {
                fail("datetime_from_date_parsing", "Input should be a valid datetime or date".into())
            }
            Some(Some(read)) if matches!(kind, Kind::AwareTime) && !read.is_aware => {
                fail("timezone_aware", "Input should have timezone info".into())
            }
            Some(Some(read)) => Ok(json!(time::format(read.at))),
        },
        Kind::Choice(choices) => match value.as_str() {
            Some(text) if choices.contains(&text) => Ok(value.clone()),
            _ => fail("enum", format!("Input should be {}", one_of(choices))),
        },
        Kind::List(inner) => match value.as_array() {
            None => fail("list_type", "Input should be a valid list".into()),
            Some(items) => items
                .iter()
                .map(|item| if item.is_null() { Ok(Value::Null) } else { from_json(*inner, item) })
                .collect::<Result<Vec<_>, _>>()
                .map(Value::from),
        },
        Kind::TaskRef => {
            let is_pair = value.as_array().is_some_and(|pair| {
                pair.len() == 2
                    && pair[0].is_string()
                    && pair[1].as_i64().is_some_and(|index| i32::try_from(index).is_ok())
            });
            if value.is_string() || is_pair {
                Ok(value.clone())
            } else {
                fail("string_type", "Input should be a valid string".into())
            }
        }
    }
}

fn one_of(choices: &[&str]) -> String {
    match choices {
        [] => String::new(),
        [only] => format!("'{only}'"),
        [head @ .., last] => {
            let head: Vec<String> = head.iter().map(|choice| format!("'{choice}'")).collect();
            format!("{} or '{last}'", head.join(", "))
        }
    }
}

/// The kind as a JSON schema.
pub(crate) fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Text(usize::MAX) => json!({"type": "string"}),
        Kind::Text(most) => json!({"type": "string", "maxLength": most}),
        Kind::Int(i64::MIN) => json!({"type": "integer"}),
        Kind::Int(least) => json!({"type": "integer", "minimum": least}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Time | Kind::AwareTime => json!({"type": "string", "format": "date-time"}),
        Kind::Choice(choices) => json!({"type": "string", "enum": choices}),
        Kind::List(inner) => json!({"type": "array", "items": schema(*inner)}),
        Kind::Object => json!({"type": "object", "additionalProperties": true}),
        Kind::TaskRef => json!({"anyOf": [
            {"type": "string"},
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2, "maxItems": 2}
        ]}),
        Kind::Any => json!({}),
    }
}
