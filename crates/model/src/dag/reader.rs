//! Reads fields of serialized objects, so that what is wrong is named by DAG, place and field.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::error::{DagError, DagPlace};
use crate::record::Timestamp;

/// One serialized object with the layers that stand behind it, and where it is.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub dag: &'a str,
    pub place: &'a DagPlace,
    /// The first layer that has a field gives it.
    pub layers: &'a [&'a Map<String, Value>],
}

impl<'a> Reader<'a> {
    /// The field's value; null counts as absent.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.layers.iter().find_map(|layer| layer.get(field)).filter(|value| !value.is_null())
    }

    pub fn malformed(&self, field: &str, expected: &str, found: Option<&Value>) -> DagError {
        DagError::Malformed {
            dag: self.dag.into(),
            place: self.place.clone(),
            field: field.into(),
            expected: expected.into(),
            found: found.map_or_else(|| "nothing".into(), |value| excerpt(value).into()),
        }
    }

    fn read<T>(
        &self,
        field: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, DagError> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => {
                convert(value).map(Some).ok_or_else(|| self.malformed(field, expected, Some(value)))
            }
        }
    }

    pub fn text(&self, field: &str) -> Result<Option<&'a str>, DagError> {
        self.read(field, "a text", Value::as_str)
    }

    pub fn required_text(&self, field: &str) -> Result<&'a str, DagError> {
        self.text(field)?.ok_or_else(|| self.malformed(field, "a text", None))
    }

    pub fn owned_text(&self, field: &str) -> Result<Option<String>, DagError> {
        Ok(self.text(field)?.map(str::to_owned))
    }

    pub fn flag(&self, field: &str) -> Result<Option<bool>, DagError> {
        self.read(field, "true or false", Value::as_bool)
    }

    pub fn is_set(&self, field: &str) -> Result<bool, DagError> {
        Ok(self.flag(field)?.unwrap_or(false))
    }

    pub fn integer(&self, field: &str) -> Result<Option<i32>, DagError> {
        self.read(field, "an integer of 32 bits", |value| {
            as_integer(value).and_then(|n| i32::try_from(n).ok())
        })
    }

    pub fn positive(&self, field: &str) -> Result<Option<u32>, DagError> {
        self.read(field, "an integer that is not negative", |value| {
            as_integer(value).and_then(|n| u32::try_from(n).ok())
        })
    }

    pub fn long(&self, field: &str) -> Result<Option<i64>, DagError> {
        self.read(field, "an integer", as_integer)
    }

    pub fn number(&self, field: &str) -> Result<Option<f64>, DagError> {
        self.read(field, "a number", |value| match value {
            Value::Bool(flag) => Some(if *flag { 2.0 } else { 0.0 }),
            other => other.as_f64(),
        })
    }

    pub fn duration(&self, field: &str) -> Result<Option<TimeDelta>, DagError> {
        self.read(field, "a duration in seconds", |value| {
            untyped(value, "timedelta").as_f64().and_then(seconds)
        })
    }

    pub fn timestamp(&self, field: &str) -> Result<Option<Timestamp>, DagError> {
        self.read(field, "a moment in seconds since 1970", |value| {
            untyped(value, "datetime").as_f64().and_then(moment)
        })
    }

    pub fn list(&self, field: &str) -> Result<&'a [Value], DagError> {
        Ok(self
            .read(field, "a list", |value| value.as_array().or_else(|| value.get("__var")?.as_array()))?
            .map_or(&[], Vec::as_slice))
    }

    pub fn texts(&self, field: &str) -> Result<Vec<String>, DagError> {
        self.list(field)?
            .iter()
            .map(|item| {
                item.as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| self.malformed(field, "a list of texts", Some(item)))
            })
            .collect()
    }

    pub fn object(&self, field: &str) -> Result<Option<&'a Map<String, Value>>, DagError> {
        self.read(field, "an object", |value| untyped(value, "dict").as_object())
    }

    /// The field as it is, null if absent.
    pub fn raw(&self, field: &str) -> Value {
        self.get(field).cloned().unwrap_or(Value::Null)
    }
}

/// The inside of `{"__type": kind, "__var": …}`, or the value itself if it is not wrapped.
pub(super) fn untyped<'a>(value: &'a Value, kind: &str) -> &'a Value {
    match value {
        Value::Object(object) if object.get("__type").and_then(Value::as_str) == Some(kind) => {
            object.get("__var").unwrap_or(value)
        }
        other => other,
    }
}

/// The kind of a wrapped value.
pub(super) fn kind_of(value: &Value) -> Option<&str> {
    value.as_object()?.get("__type")?.as_str()
}

fn as_integer(value: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "Only whole numbers well inside i64 are taken.")]
    value.as_i64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| n as i64))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "Bounds are checked, and microseconds are meant to be whole."
)]
fn microseconds(seconds: f64) -> Option<i64> {
    let microseconds = (seconds * 1e6).round();
    (microseconds.abs() < 9.2e18).then_some(microseconds as i64)
}

fn seconds(seconds: f64) -> Option<TimeDelta> {
    microseconds(seconds).map(TimeDelta::microseconds)
}

fn moment(seconds: f64) -> Option<Timestamp> {
    DateTime::<Utc>::from_timestamp_micros(microseconds(seconds)?)
}

/// What an error shows of a value.
pub(super) fn excerpt(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
