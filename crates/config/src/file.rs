//! Reads `gust.toml` into settings with their lines.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::ConfigError;
use crate::nearest;
use crate::settings::{Setting, find, sections};
use crate::sources::Origin;

/// A value of the file and the line of its key, from 1.
pub(crate) struct FileValue {
    pub(crate) value: Value,
    pub(crate) line: usize,
}

/// The known settings of the file by `section.key`; everything else goes to `problems`.
pub(crate) fn read(
    path: &Path,
    text: &str,
    problems: &mut Vec<ConfigError>,
) -> BTreeMap<&'static str, FileValue> {
    let mut found = BTreeMap::new();
    let (document, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        problems.extend(syntax.iter().map(|error| {
            let (line, column) = place(text, error.span().map_or(0, |span| span.start));
            let place = format!("{}:{line}:{column}", path.display());
            ConfigError::Syntax { place, message: error.message().trim().replace('\n', "; ") }
        }));
        // What the parser made of a broken document would only raise follow-up errors.
        return found;
    }
    for (section, content) in document.get_ref() {
        let at = |offset| Origin::File { path: path.to_path_buf(), line: place(text, offset).0 };
        let name: &str = section.get_ref();
        let Some(table) = content.get_ref().as_table() else {
            let nearest = nearest::setting("", name).map(Setting::in_file);
            let origin = at(section.span().start);
            problems.push(ConfigError::Unknown {
                origin,
                name: format!("setting {name} outside a section"),
                nearest,
            });
            continue;
        };
        if !sections().any(|known| known == name) {
            problems.extend(strange_section(name, section.span().start, table, &at));
            continue;
        }
        for (key, value) in table {
            let key_name: &str = key.get_ref();
            let offset = key.span().start;
            if let Some(setting) = find(name, key_name) {
                let line = place(text, offset).0;
                found.insert(setting.name, FileValue { value: json(value), line });
            } else {
                problems.push(strange_key(name, key_name, at(offset)));
            }
        }
    }
    found
}

/// A section that does not exist is one error, unless its keys belong to settings which stand elsewhere: then each
/// says where, as for `[database] sql_alchemy_conn`.
fn strange_section(
    name: &str,
    offset: usize,
    table: &DeTable<'_>,
    at: &impl Fn(usize) -> Origin,
) -> Vec<ConfigError> {
    if let Some(nearest) = nearest::section(name) {
        let nearest = Some(format!("[{nearest}]"));
        return vec![ConfigError::Unknown { origin: at(offset), name: format!("section [{name}]"), nearest }];
    }
    let keys: Vec<_> =
        table.keys().map(|key| strange_key(name, key.get_ref(), at(key.span().start))).collect();
    if keys.is_empty() {
        let name = format!("section [{name}]");
        return vec![ConfigError::Unknown { origin: at(offset), name, nearest: None }];
    }
    keys
}

fn strange_key(section: &str, key: &str, origin: Origin) -> ConfigError {
    let nearest = nearest::setting(section, key).map(Setting::in_file);
    ConfigError::Unknown { origin, name: format!("setting {section}.{key}"), nearest }
}

fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Dates and numbers beyond JSON's become text; no setting takes them, and the text is good to be shown.
fn json(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.as_str().to_owned()), Value::from),
        DeValue::Float(number) => number
            .as_str()
            .parse::<f64>()
            .map_or_else(|_| Value::String(number.as_str().to_owned()), Value::from),
        DeValue::Datetime(date) => Value::String(date.to_string()),
        DeValue::Array(items) => items.iter().map(json).collect(),
        DeValue::Table(table) => {
            table.iter().map(|(key, value)| (key.get_ref().clone().into_owned(), json(value))).collect()
        }
    }
}
