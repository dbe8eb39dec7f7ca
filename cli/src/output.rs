//! How results are printed: tables for people, aligned columns for pipes, JSON and YAML for programs.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write},
};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde_json::{Map, Value};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// With lines and, on a terminal, colours
    Table,
    /// JSON, with all fields
    Json,
    /// YAML, with all fields
    Yaml,
    /// Aligned columns, nothing cut
    Plain,
}

/// Where a command's results go.
pub struct Out {
    chosen: Option<Format>,
    is_terminal: bool,
    is_coloured: bool,
    writer: Box<dyn Write + Send>,
}

impl Out {
    /// To this process's standard output.
    pub fn stdout(chosen: Option<Format>) -> Self {
        let is_terminal = io::stdout().is_terminal();
        // https://no-color.org
        let is_coloured = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { chosen, is_terminal, is_coloured, writer: Box::new(io::stdout()) }
    }

    /// The format: what was asked for, or what fits the place.
    pub fn format(&self) -> Format {
        self.chosen.unwrap_or(if self.is_terminal { Format::Table } else { Format::Plain })
    }

    /// Whether a program rather than a person reads the result.
    pub fn is_structured(&self) -> bool {
        matches!(self.format(), Format::Json | Format::Yaml)
    }

    /// Whether the place shows colours.
    pub fn is_coloured(&self) -> bool {
        self.is_coloured
    }

    /// Prints a line as it is, control characters made visible.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        for part in text.split('\n') {
            writeln!(self.writer, "{}", visible(part))?;
        }
        self.writer.flush()
    }

    /// Prints text of our own making, or that is wanted byte for byte.
    pub fn raw(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes())?;
        self.writer.flush()
    }

    /// Says what was done. Nothing where a program reads: the result itself is printed there.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        if self.is_structured() { Ok(()) } else { self.line(text) }
    }

    /// Prints one object as a program reads it.
    pub fn value(&mut self, value: &Value) -> io::Result<()> {
        let text = if self.format() == Format::Yaml { to_yaml(value) } else { format!("{value:#}\n") };
        self.raw(&text)
    }

    /// Prints rows. JSON and YAML show all of each row, tables the named columns. A column of a nested value is named
    /// by its path (`next_run.run_after`), and the last part is its title unless one is given behind `=`
    /// (`next_run.run_after=next_run`).
    pub fn rows(&mut self, columns: &[&str], rows: &[Value], if_none: &str) -> io::Result<()> {
        match self.format() {
            Format::Json | Format::Yaml => self.value(&Value::Array(rows.to_vec())),
            _ if rows.is_empty() => self.line(if_none),
            Format::Table => {
                let table = self.table(columns, rows);
                self.raw(&format!("{table}\n"))
            }
            Format::Plain => self.raw(&plain(columns, rows)),
        }
    }

    /// Prints one object's named fields, one a line; JSON and YAML show all of it.
    pub fn details(&mut self, fields: &[&str], object: &Value) -> io::Result<()> {
        if self.is_structured() {
            return self.value(object);
        }
        let width = fields.iter().map(|field| title(field).len()).max().unwrap_or(0);
        let mut text = String::new();
        for field in fields {
            let cell = cell(at(object, field));
            let shown = self.painted(&cell);
            let _ = writeln!(text, "{:width$}  {shown}", title(field));
        }
        self.raw(&text)
    }

    /// A word in its state's colour, if there are colours.
    pub fn painted(&self, word: &str) -> String {
        let code = match state_colour(word) {
            Some(Color::Green) => "32",
            Some(Color::Red) => "31",
            Some(Color::Cyan) => "36",
            Some(Color::Yellow) => "33",
            Some(Color::Magenta) => "35",
            Some(_) => "90",
            None => return word.to_owned(),
        };
        if self.is_coloured { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.to_owned() }
    }

    fn table(&self, columns: &[&str], rows: &[Value]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        if self.is_terminal {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        if self.is_coloured {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(columns.iter().map(|column| title(column)).collect::<Vec<_>>());
        for row in rows {
            table.add_row(columns.iter().map(|column| {
                let text = cell(at(row, column));
                let colour = state_colour(&text);
                let cell = Cell::new(text);
                match colour {
                    Some(colour) => cell.fg(colour),
                    None => cell,
                }
            }));
        }
        table
    }
}

fn title(column: &str) -> &str {
    let (path, title) = column.split_once('=').unwrap_or((column, ""));
    if title.is_empty() { path.rsplit('.').next().unwrap_or(path) } else { title }
}

fn at<'v>(value: &'v Value, column: &str) -> &'v Value {
    let path = column.split('=').next().unwrap_or(column);
    path.split('.').fold(value, |value, part| value.get(part).unwrap_or(&Value::Null))
}

fn plain(columns: &[&str], rows: &[Value]) -> String {
    let mut lines = vec![columns.iter().map(|column| title(column).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|column| cell(at(row, column))).collect()));
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}", width = *width)).collect();
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
    }
    text
}

/// A value as a cell's text.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => visible(text),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).map(visible).collect::<Vec<_>>().join(", ")
        }
        other => visible(&other.to_string()),
    }
}

/// Makes control characters visible: DAG authors choose ids and texts, and a terminal obeys what it is sent.
pub fn visible(text: &str) -> String {
    let is_hidden = |c: char| (c.is_control() && c != '\t') || ('\u{202a}'..='\u{202e}').contains(&c);
    if !text.contains(is_hidden) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

fn state_colour(word: &str) -> Option<Color> {
    match word {
        "success" => Some(Color::Green),
        "failed" | "upstream_failed" => Some(Color::Red),
        "running" | "restarting" => Some(Color::Cyan),
        "up_for_retry" | "up_for_reschedule" | "queued" => Some(Color::Yellow),
        "deferred" | "awaiting_input" => Some(Color::Magenta),
        "skipped" | "removed" | "scheduled" => Some(Color::DarkGrey),
        _ => None,
    }
}

/// YAML for values of JSON. Texts that YAML might take for something else are quoted as JSON quotes them, which YAML
/// reads alike.
fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    yaml(value, 0, &mut out);
    out
}

fn yaml(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                yaml(item, depth + 1, &mut inner);
                // The first line of a nested block stands behind the dash.
                let _ = write!(out, "{indent}- {}", inner.trim_start_matches(' '));
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let key = yaml_scalar(&Value::from(key.as_str()));
                if is_block(value) {
                    let _ = writeln!(out, "{indent}{key}:");
                    yaml(value, depth + 1, out);
                } else {
                    let _ = writeln!(out, "{indent}{key}: {}", yaml_scalar(value));
                }
            }
        }
        scalar => {
            let _ = writeln!(out, "{indent}{}", yaml_scalar(scalar));
        }
    }
}

fn is_block(value: &Value) -> bool {
    value.as_array().is_some_and(|items| !items.is_empty())
        || value.as_object().is_some_and(|fields| !fields.is_empty())
}

fn yaml_scalar(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let is_plain = text.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c))
        && text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '/')
        && !matches!(
            text.to_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if is_plain { text.clone() } else { value.to_string() }
}

/// A record as a row.
///
/// # Errors
/// When it cannot be turned into JSON, which no record does.
pub fn row(record: &impl serde::Serialize) -> serde_json::Result<Value> {
    serde_json::to_value(record)
}

/// A row with fields added.
pub fn with(mut row: Value, more: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    if !row.is_object() {
        row = Value::Object(Map::new());
    }
    if let Value::Object(fields) = &mut row {
        fields.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
    }
    row
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_output_aligns_and_never_cuts() {
        let rows = [json!({"a": "x", "b": {"c": 1}}), json!({"a": "longer", "b": null})];
        assert_eq!(plain(&["a", "b.c=number"], &rows), "a       number\nx       1\nlonger\n");
    }

    #[test]
    fn what_authors_choose_cannot_steer_the_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[2Jb\u{202e}")), "a\\u{1b}[2Jb\\u{202e}");
    }

    #[test]
    fn yaml_quotes_what_it_would_take_for_something_else() {
        let value =
            json!([{"a": "no", "b": [1, {"c": "x: y"}], "d": [], "e": null, "f": "plain", "g": "12"}]);
        insta::assert_snapshot!(to_yaml(&value), @r#"
        - a: "no"
          b:
            - 1
            - c: "x: y"
          d: []
          e: null
          f: plain
          g: "12"
        "#);
    }
}
