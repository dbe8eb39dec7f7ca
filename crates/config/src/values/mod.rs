//! The types of settings: how each is read from text and from TOML, and how it is written.

mod bundles;
mod choices;
mod keys;
mod metastore_url;
mod plain;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

pub use bundles::{Bundle, Bundles};
pub use choices::{IgnoreSyntax, LogFormat, LogLevel, TestConnection, WeightRule};
pub(crate) use choices::{format_of_json_logs, level_of_python};
pub use keys::{KeyRing, Secret, SecretObject};
pub use metastore_url::MetastoreUrl;
pub(crate) use metastore_url::from_sql_alchemy;
pub use plain::{BaseUrl, Seconds, Timezone};

/// A value as somebody wrote it.
pub(crate) enum Given<'a> {
    /// From the environment, the command line or the table of defaults.
    Text(&'a str),
    /// From the file, where values have types.
    Toml(&'a Value),
}

impl Given<'_> {
    /// The value for a message, cut where it is long.
    pub(crate) fn quoted(&self) -> String {
        let written = match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Toml(value) => value.to_string(),
        };
        if written.chars().count() <= 120 {
            return written;
        }
        format!("{}…", written.chars().take(119).collect::<String>())
    }

    /// `expected WHAT`, and for a value of another TOML type what was found; a number shows by itself what it is.
    pub(crate) fn mismatch(&self, expected: &str) -> String {
        let found = match self {
            Self::Text(_) | Self::Toml(Value::Number(_)) => return format!("expected {expected}"),
            Self::Toml(value) => match value {
                Value::Bool(_) => "a boolean",
                Value::String(_) => "a string",
                Value::Array(_) => "a list",
                Value::Object(_) => "a table",
                Value::Null | Value::Number(_) => "a number",
            },
        };
        format!("expected {expected}, found {found}")
    }
}

/// What is around a value.
pub(crate) struct Context<'a> {
    /// For `~` and `$NAME` in paths.
    pub(crate) env: &'a BTreeMap<String, String>,
    /// What relative paths are relative to; empty for the working directory.
    pub(crate) base: &'a Path,
}

impl Context<'_> {
    /// The path that `text` stands for.
    pub(crate) fn path(&self, text: &str) -> Result<PathBuf, String> {
        let expanded = expand(text.trim(), self.env);
        if expanded.is_empty() {
            return Err("expected a path".to_owned());
        }
        if expanded == "~" || expanded.starts_with("~/") {
            return Err("expected a full path, since HOME is not set and ~ has no meaning".to_owned());
        }
        Ok(self.base.join(expanded))
    }
}

/// A type that a setting can have.
pub(crate) trait SettingValue: Sized + Serialize {
    /// The type's name in the reference, as it reads after "expected".
    const KIND: &'static str;

    /// Reads a value; the error is the reason why not, as it reads after "cannot be X: ".
    fn parse(given: &Given<'_>, context: &Context<'_>) -> Result<Self, String>;

    /// The value as text that reads back as the same value, empty where it is unset.
    fn text(&self) -> String;

    /// The value of a secret setting as it may be shown.
    fn masked(&self) -> String {
        if self.text().is_empty() { String::new() } else { "***".to_owned() }
    }

    /// Whether it is a number below `least`.
    fn is_below(&self, _least: u32) -> bool {
        false
    }
}

impl<T: SettingValue> SettingValue for Option<T> {
    const KIND: &'static str = T::KIND;

    fn parse(given: &Given<'_>, context: &Context<'_>) -> Result<Self, String> {
        let unset = match given {
            Given::Text(text) => text.trim().is_empty(),
            Given::Toml(value) => value.as_str().is_some_and(|text| text.trim().is_empty()),
        };
        if unset { Ok(None) } else { T::parse(given, context).map(Some) }
    }

    fn text(&self) -> String {
        self.as_ref().map_or_else(String::new, SettingValue::text)
    }

    fn masked(&self) -> String {
        self.as_ref().map_or_else(String::new, SettingValue::masked)
    }

    fn is_below(&self, least: u32) -> bool {
        self.as_ref().is_some_and(|value| value.is_below(least))
    }
}

/// Expands `~`, `$NAME` and `${NAME}` as Airflow does (`configuration.py: expand_env_var`): again and again until
/// nothing changes, leaving alone what has no value. Values that name each other end after a few rounds.
pub(crate) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    const ROUNDS_MAX: usize = 8;
    let mut text = text.to_owned();
    for _ in 0..ROUNDS_MAX {
        let next = expand_once(&text, env);
        if next == text {
            break;
        }
        text = next;
    }
    text
}

fn expand_once(text: &str, env: &BTreeMap<String, String>) -> String {
    let (mut expanded, mut rest) = (String::with_capacity(text.len()), text);
    if let Some(home) = env.get("HOME").filter(|home| !home.is_empty())
        && (text == "~" || text.starts_with("~/"))
    {
        expanded.push_str(home.trim_end_matches('/'));
        rest = &text[1..];
    }
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        let (name, end) = if let Some(braced) = after.strip_prefix('{') {
            braced.find('}').map_or(("", 0), |close| (&braced[..close], close + 2))
        } else {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            (&after[..end], end)
        };
        if let Some(value) = env.get(name) {
            expanded.push_str(value);
            rest = &after[end..];
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}
