//! From msgpack to JSON, as Airflow's own supervisor would have it.

use base64::Engine as _;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Number, Value};

/// The msgpack extension type of timestamps.
const TIMESTAMP: i8 = -1;

/// Converts a decoded msgpack value.
///
/// Timestamps become RFC 3339 strings, bytes Base64 (pydantic's JSON form), and the floats that JSON lacks become
/// the strings `nan`, `inf` and `-inf`, as Airflow's own migration of XComs to JSON has them.
pub(crate) fn to_json(value: rmpv::Value) -> Value {
    match value {
        rmpv::Value::Boolean(flag) => Value::Bool(flag),
        rmpv::Value::Integer(number) => number
            .as_i64()
            .map(Number::from)
            .or_else(|| number.as_u64().map(Number::from))
            .map_or(Value::Null, Value::Number),
        rmpv::Value::F32(number) => float(f64::from(number)),
        rmpv::Value::F64(number) => float(number),
        rmpv::Value::String(text) => text.into_str().map_or(Value::Null, Value::String),
        rmpv::Value::Binary(bytes) => Value::String(base64::engine::general_purpose::STANDARD.encode(bytes)),
        rmpv::Value::Array(items) => Value::Array(items.into_iter().map(to_json).collect()),
        rmpv::Value::Map(pairs) => Value::Object(
            pairs.into_iter().map(|(key, item)| (key_text(key), to_json(item))).collect::<Map<_, _>>(),
        ),
        rmpv::Value::Ext(TIMESTAMP, bytes) => timestamp(&bytes)
            .map_or(Value::Null, |moment| Value::String(moment.to_rfc3339_opts(SecondsFormat::AutoSi, true))),
        rmpv::Value::Nil | rmpv::Value::Ext(..) => Value::Null,
    }
}

fn float(number: f64) -> Value {
    Number::from_f64(number).map_or_else(
        || {
            let name = if number.is_nan() {
                "nan"
            } else if number > 0.0 {
                "inf"
            } else {
                "-inf"
            };
            Value::String(name.into())
        },
        Value::Number,
    )
}

fn key_text(key: rmpv::Value) -> String {
    match to_json(key) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// The three layouts of msgpack's timestamp extension.
fn timestamp(bytes: &[u8]) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = match bytes.len() {
        4 => (i64::from(u32::from_be_bytes(bytes.try_into().ok()?)), 0),
        8 => {
            let packed = u64::from_be_bytes(bytes.try_into().ok()?);
            (i64::try_from(packed & 0x3_ffff_ffff).ok()?, u32::try_from(packed >> 34).ok()?)
        }
        12 => {
            let (nanos, seconds) = bytes.split_at(4);
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(nanos.try_into().ok()?))
        }
        _ => return None,
    };
    DateTime::from_timestamp(seconds, nanos)
}
