//! Hides what names say is secret (`airflow/_shared/secrets_masker/secrets_masker.py`).

use gust_model::is_sensitive_name;
use serde_json::Value;

/// What stands in place of a secret.
pub(crate) const MASK: &str = "***";

/// Whether a name says that its value is secret.
pub(crate) fn is_sensitive(name: &str) -> bool {
    is_sensitive_name(name, &[])
}

/// Hides values under sensitive names.
pub(crate) fn redact(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| {
                    let shown = if is_sensitive(&name) { hide(value) } else { redact(value) };
                    (name, shown)
                })
                .collect(),
        ),
        Value::Array(items) => items.into_iter().map(redact).collect(),
        other => other,
    }
}

/// Hides all texts within a value that is secret; nothing stays readable but its shape.
fn hide(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, hide(value))).collect())
        }
        Value::Array(items) => items.into_iter().map(hide).collect(),
        Value::Null => Value::Null,
        _ => Value::from(MASK),
    }
}

/// Puts stored secrets back where a client sent their masks.
pub(crate) fn unmask(sent: Value, stored: &Value) -> Value {
    match sent {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| {
                    let kept = stored.get(&name).unwrap_or(&Value::Null);
                    let value = unmask(value, kept);
                    (name, value)
                })
                .collect(),
        ),
        Value::String(text) if text == MASK && !stored.is_null() => stored.clone(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_hidden_and_masks_sent_back_mean_the_secret() {
        let stored = json!({"host": "h", "aws_secret_access_key": "x", "nested": {"token": ["a", 1]}});
        let shown = redact(stored.clone());
        assert_eq!(
            shown,
            json!({"host": "h", "aws_secret_access_key": "***", "nested": {"token": ["***", "***"]}})
        );
        let sent = json!({"host": "new", "aws_secret_access_key": "***"});
        assert_eq!(unmask(sent, &stored), json!({"host": "new", "aws_secret_access_key": "x"}));
    }
}
