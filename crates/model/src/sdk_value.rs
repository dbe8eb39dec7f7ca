//! Values in the form in which Airflow's SDK writes them down for itself (`airflow/sdk/serde/__init__.py`), as far as
//! Gust makes some of its own.

use serde_json::{Value, json};

use crate::record::Timestamp;

/// A moment, as the SDK's serde writes a UTC `datetime`.
#[must_use]
pub fn datetime(moment: Timestamp) -> Value {
    #[expect(
        clippy::cast_precision_loss,
        reason = "Microseconds since the epoch stay below 2^53 until the year 2255."
    )]
    let timestamp = moment.timestamp_micros() as f64 / 1e6;
    json!({
        "__classname__": "datetime.datetime",
        "__version__": 2,
        "__data__": {
            "timestamp": timestamp,
            "tz": {
                "__classname__": "builtins.tuple",
                "__version__": 1,
                "__data__": ["UTC", "pendulum.tz.timezone.FixedTimezone", 1, true],
            },
        },
    })
}

/// The arguments with which a task resumes after an event: those it deferred with, and the event
/// (`airflow/models/trigger.py: handle_event_submit`).
#[must_use]
pub fn with_event(next_kwargs: &Value, event: Value) -> Value {
    let mut kwargs = next_kwargs.as_object().cloned().unwrap_or_default();
    kwargs.insert("event".to_owned(), event);
    Value::Object(kwargs)
}
