//! A task's log line for people.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::output::visible;

/// What has a place of its own in the line, or below it, and where in the code it was logged.
const SHOWN_ELSEWHERE: [&str; 10] = [
    "timestamp",
    "level",
    "logger",
    "event",
    "error_detail",
    "exception",
    "exc_info",
    "filename",
    "lineno",
    "loc",
];

/// What the SDK binds to every line of a try: whoever reads the try's log knows it.
const OF_THE_TRY: [&str; 7] = ["dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id", "ti"];

/// `time level logger event key=value …`, with tracebacks as text below it.
pub fn text(line: &Value, is_coloured: bool) -> String {
    let Some(fields) = line.as_object() else { return visible(&line.to_string()) };
    let field = |name: &str| fields.get(name).and_then(Value::as_str);
    let mut out = String::new();
    if let Some(time) = field("timestamp") {
        let shown = DateTime::parse_from_rfc3339(time).map_or_else(
            |_| visible(time),
            |moment| moment.with_timezone(&Utc).format("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        );
        let _ = write!(out, "{shown} ");
    }
    if let Some(level) = field("level") {
        let _ = write!(out, "{} ", painted(&visible(level), is_coloured));
    }
    // What a task prints comes under its stream's name, which says nothing to whoever reads a task's log.
    if let Some(logger) = field("logger").filter(|logger| !matches!(*logger, "task.stdout" | "task")) {
        let _ = write!(out, "[{}] ", visible(logger));
    }
    let event = fields.get("event").map_or_else(String::new, |event| match event {
        Value::String(event) => event.clone(),
        other => other.to_string(),
    });
    let _ = write!(out, "{}", lines(&event));
    for (key, value) in fields {
        if SHOWN_ELSEWHERE.contains(&key.as_str()) || OF_THE_TRY.contains(&key.as_str()) {
            continue;
        }
        let shown = match value {
            Value::String(text) if !text.contains(char::is_whitespace) => visible(text),
            other => visible(&other.to_string()),
        };
        let _ = write!(out, " {}={shown}", visible(key));
    }
    for key in ["exception", "exc_info"] {
        if let Some(trace) = field(key) {
            let _ = write!(out, "\n{}", lines(trace));
        }
    }
    if let Some(details) = fields.get("error_detail").and_then(Value::as_array) {
        for detail in details.iter().rev() {
            traceback(detail, &mut out);
        }
    }
    out
}

/// The SDK's structured traceback (structlog's `ExceptionDictTransformer`) as Python would print it.
fn traceback(detail: &Value, out: &mut String) {
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let frames = detail.get("frames").and_then(Value::as_array);
    if frames.is_some_and(|frames| !frames.is_empty()) {
        out.push_str("\nTraceback (most recent call last):");
    }
    for frame in frames.into_iter().flatten() {
        let line = frame.get("lineno").map_or_else(String::new, Value::to_string);
        let place = format!("File \"{}\", line {line}, in {}", text(frame, "filename"), text(frame, "name"));
        let _ = write!(out, "\n  {}", visible(&place));
        let code = text(frame, "line");
        if !code.is_empty() {
            let _ = write!(out, "\n    {}", visible(&code));
        }
    }
    let (kind, value) = (text(detail, "exc_type"), text(detail, "exc_value"));
    let end = if value.is_empty() { kind } else { format!("{kind}: {value}") };
    let _ = write!(out, "\n{}", lines(&end));
    if detail.get("is_cause").and_then(Value::as_bool) == Some(true) {
        out.push_str("\nThe above exception was the direct cause of the following exception:");
    }
}

/// A text of several lines, control characters made visible.
fn lines(text: &str) -> String {
    text.trim_end().lines().map(visible).collect::<Vec<_>>().join("\n")
}

fn painted(level: &str, is_coloured: bool) -> String {
    let code = match level {
        _ if !is_coloured => return level.to_uppercase(),
        "error" | "critical" => "31",
        "warning" | "warn" => "33",
        "debug" => "90",
        _ => "36",
    };
    format!("\u{1b}[{code}m{}\u{1b}[0m", level.to_uppercase())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_shows_time_level_logger_event_and_the_rest() {
        let line = json!({
            "timestamp": "2026-11-23T10:00:00.123456Z", "level": "info", "logger": "dag.module", "event": "hello",
            "count": 3, "name": "two words"
        });
        assert_eq!(
            text(&line, false),
            "2026-11-23 10:00:00.123 INFO [dag.module] hello count=3 name=\"two words\""
        );
    }

    #[test]
    fn tracebacks_read_as_python_prints_them() {
        let line = json!({
            "level": "error", "event": "Task failed with exception", "error_detail": [{
                "exc_type": "ValueError", "exc_value": "bad \u{1b}[2J", "is_cause": false,
                "frames": [{"filename": "/d.py", "lineno": 7, "name": "f"}]
            }]
        });
        insta::assert_snapshot!(text(&line, false), @r#"
        ERROR Task failed with exception
        Traceback (most recent call last):
          File "/d.py", line 7, in f
        ValueError: bad \u{1b}[2J
        "#);
    }

    #[test]
    fn what_is_no_log_object_is_shown_all_the_same() {
        assert_eq!(text(&json!("x"), false), "\"x\"");
        assert_eq!(text(&json!({"event": {"a": 1}}), false), "{\"a\":1}");
    }
}
