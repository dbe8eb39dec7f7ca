//! Waiting without a worker: what a deferred task waits for, and how it goes on. Pure.

use chrono::{SubsecRound, TimeDelta};
use gust_model::{record::Timestamp, sdk_value};
use gust_python_host::messages::DeferTask;
use serde_json::{Value, json};

/// The method that stands for "the wait failed" (`airflow/triggers/base.py: TRIGGER_FAIL_REPR`).
pub const FAIL_METHOD: &str = "__fail__";

/// Why a wait failed: it took too long (`airflow/models/trigger.py: TriggerFailureReason`).
pub const TRIGGER_TIMEOUT: &str = "Trigger timeout";

/// Why a wait failed: its trigger did.
pub const TRIGGER_FAILURE: &str = "Trigger failure";

/// The trigger that needs no Python: it waits for a moment. `TimeDeltaTrigger` serializes as one too.
const DATE_TIME_TRIGGER: &str = "airflow.providers.standard.triggers.temporal.DateTimeTrigger";

/// How a deferred task waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Deferral {
    /// When it goes on by itself, or has waited for too long.
    pub due_at: Option<Timestamp>,
    /// The method to go on with.
    pub next_method: String,
    /// Its arguments; for a wait that needs no trigger already with the event.
    pub next_kwargs: Value,
    /// Whether a trigger has to run in Python.
    pub needs_trigger: bool,
}

/// Works out how a task waits that deferred itself at `now`.
#[must_use]
pub fn defer(m: &DeferTask, now: Timestamp) -> Deferral {
    let next_kwargs = Value::Object(m.next_kwargs.clone().unwrap_or_default());
    let timeout_at = m.trigger_timeout.and_then(|limit| now.checked_add_signed(limit.0));
    match native_moment(&m.classpath, &m.trigger_kwargs) {
        Some(moment) if timeout_at.is_some_and(|timeout_at| timeout_at < moment.0) => Deferral {
            due_at: timeout_at,
            next_method: FAIL_METHOD.to_owned(),
            next_kwargs: json!({"error": TRIGGER_TIMEOUT}),
            needs_trigger: false,
        },
        Some((moment, event)) => Deferral {
            due_at: Some(moment),
            next_method: m.next_method.clone(),
            next_kwargs: sdk_value::with_event(&next_kwargs, event),
            needs_trigger: false,
        },
        None => Deferral {
            due_at: timeout_at,
            next_method: m.next_method.clone(),
            next_kwargs,
            needs_trigger: true,
        },
    }
}

/// The moment that a trigger waits for and the event that it then fires, if it is nothing but a wait.
fn native_moment(classpath: &str, kwargs: &Value) -> Option<(Timestamp, Value)> {
    if classpath != DATE_TIME_TRIGGER {
        return None;
    }
    // A wait that ends the task itself is the triggerer's.
    if kwargs.get("end_from_trigger").and_then(Value::as_bool) == Some(true) {
        return None;
    }
    let event = kwargs.get("moment")?;
    let timestamp = event.pointer("/__data__/timestamp")?.as_f64()?;
    #[expect(clippy::cast_possible_truncation, reason = "Moments beyond the range are refused below.")]
    let micros = (timestamp * 1e6).round() as i64;
    let moment = Timestamp::from_timestamp_micros(micros)?.trunc_subsecs(6);
    (moment < Timestamp::MAX_UTC - TimeDelta::days(1)).then(|| (moment, event.clone()))
}

/// The arguments of [`FAIL_METHOD`] for a trigger that raised.
#[must_use]
pub fn failure_kwargs(traceback: &str) -> Value {
    let lines: Vec<&str> = traceback.split_inclusive('\n').collect();
    json!({"error": TRIGGER_FAILURE, "traceback": lines})
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use gust_python_host::messages::IsoDuration;

    use super::*;

    fn moment(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn wait_until(at: &str, limit: Option<TimeDelta>, ends: bool) -> DeferTask {
        DeferTask {
            classpath: DATE_TIME_TRIGGER.to_owned(),
            trigger_kwargs: json!({"moment": sdk_value::datetime(moment(at)), "end_from_trigger": ends}),
            trigger_timeout: limit.map(IsoDuration),
            queue: None,
            next_method: "go_on".to_owned(),
            next_kwargs: json!({"a": 1}).as_object().cloned(),
            rendered_map_index: None,
        }
    }

    #[test]
    fn a_wait_for_a_moment_needs_no_python_and_knows_its_event_beforehand() {
        let now = moment("2026-01-01T00:00:00Z");
        let found = defer(&wait_until("2026-01-01T00:00:05.250Z", None, false), now);
        assert_eq!(found.due_at, Some(moment("2026-01-01T00:00:05.250Z")));
        assert!(!found.needs_trigger);
        assert_eq!(found.next_kwargs["a"], 1);
        assert_eq!(found.next_kwargs["event"]["__data__"]["timestamp"], 1_767_225_605.25);
    }

    #[test]
    fn a_limit_that_comes_before_the_moment_fails_the_wait() {
        let now = moment("2026-01-01T00:00:00Z");
        let found = defer(&wait_until("2026-01-01T01:00:00Z", Some(TimeDelta::seconds(3)), false), now);
        assert_eq!(found.due_at, Some(moment("2026-01-01T00:00:03Z")));
        assert_eq!(found.next_method, FAIL_METHOD);
        assert_eq!(found.next_kwargs, json!({"error": "Trigger timeout"}));
    }

    #[test]
    fn other_triggers_and_those_that_end_the_task_run_in_python_under_their_limit() {
        let now = moment("2026-01-01T00:00:00Z");
        let mut m = wait_until("2026-01-01T01:00:00Z", Some(TimeDelta::seconds(3)), true);
        assert!(defer(&m, now).needs_trigger);
        m.classpath = "my.Trigger".to_owned();
        let found = defer(&m, now);
        assert!(found.needs_trigger);
        assert_eq!(found.due_at, Some(moment("2026-01-01T00:00:03Z")));
        assert_eq!(found.next_kwargs, json!({"a": 1}));
    }
}
