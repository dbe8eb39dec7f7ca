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
/// (`airflow/models/trigger.py: handle_event_submit`). `event` is in the SDK's serialized form.
#[must_use]
pub fn with_event(next_kwargs: &Value, event: Value) -> Value {
    let mut kwargs = next_kwargs.as_object().cloned().unwrap_or_default();
    // What an older SDK wrapped keeps its wrapping.
    let target = match kwargs.get_mut("__var") {
        Some(Value::Object(wrapped)) => wrapped,
        _ => &mut kwargs,
    };
    target.insert("event".to_owned(), event);
    Value::Object(kwargs)
}

/// A person's answer as the event that the operator reads (`airflow/models/hitl.py: as_resume_event_payload`).
/// `response` is as the SDK's `HITLDetailResponse` has it; `timedout` says that nobody gave it and it is the default.
#[must_use]
pub fn hitl_event(response: &Value, timedout: bool) -> Value {
    let given = |key: &str| response.get(key).filter(|value| !value.is_null()).cloned();
    let responded_at = response
        .get("responded_at")
        .and_then(Value::as_str)
        .and_then(|text| text.parse::<Timestamp>().ok())
        .map_or(Value::Null, datetime);
    json!({
        "chosen_options": given("chosen_options").unwrap_or_else(|| json!([])),
        "params_input": given("params_input").unwrap_or_else(|| json!({})),
        "responded_at": responded_at,
        "responded_by_user": given("responded_by_user"),
        "timedout": timedout,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_joins_the_arguments_in_either_form() {
        assert_eq!(with_event(&json!({"a": 1}), json!("e")), json!({"a": 1, "event": "e"}));
        assert_eq!(with_event(&Value::Null, json!("e")), json!({"event": "e"}));
        assert_eq!(
            with_event(&json!({"__type": "dict", "__var": {"a": 1}}), json!("e")),
            json!({"__type": "dict", "__var": {"a": 1, "event": "e"}})
        );
    }

    #[test]
    fn an_answer_becomes_an_event_whose_moment_the_sdk_reads_as_a_datetime() {
        let answer = json!({
            "response_received": true, "responded_by_user": null, "responded_at": "2026-01-01T00:00:00Z",
            "chosen_options": ["Approve"], "params_input": null,
        });
        let event = hitl_event(&answer, false);
        assert_eq!(event["chosen_options"], json!(["Approve"]));
        assert_eq!(event["params_input"], json!({}));
        assert_eq!(event["responded_at"]["__data__"]["timestamp"], 1_767_225_600.0);
        assert_eq!(event["timedout"], false);
    }
}
