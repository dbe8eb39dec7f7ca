//! Lines of a try's log: JSON objects in the SDK's shape.

use std::sync::Arc;

use chrono::SecondsFormat;
use gust_model::record::Timestamp;
use serde_json::{Map, Value};

use crate::redact::{Redactor, Secrets};

/// A line of output longer than this is cut into several.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The logger of what the worker itself has to say in a task's log.
const SUPERVISOR: &str = "gust.supervisor";

/// How bad a line is, under the SDK's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// All is well.
    Info,
    /// Something to look at.
    Warning,
    /// Something failed.
    Error,
    /// Something failed badly.
    Critical,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

fn push_line(
    out: &mut Vec<u8>,
    at: Timestamp,
    level: Level,
    logger: &str,
    event: &str,
    more: Map<String, Value>,
) {
    let mut line = Map::with_capacity(4 + more.len());
    line.insert("timestamp".into(), at.to_rfc3339_opts(SecondsFormat::Micros, true).into());
    line.insert("level".into(), level.as_str().into());
    line.insert("event".into(), event.into());
    line.insert("logger".into(), logger.into());
    line.extend(more);
    out.extend_from_slice(Value::Object(line).to_string().as_bytes());
    out.push(b'\n');
}

/// Turns what a process logs and writes into redacted lines.
#[derive(Debug)]
pub struct Lines {
    log: Redactor,
    stdout: Output,
    stderr: Output,
    supervisor: Redactor,
}

/// One of a process's output streams.
#[derive(Debug)]
struct Output {
    logger: &'static str,
    level: Level,
    redactor: Redactor,
    /// Redacted text without a line end yet.
    open: Vec<u8>,
}

impl Lines {
    /// Lines of a fresh process.
    #[must_use]
    pub fn new(secrets: &Arc<Secrets>) -> Self {
        let redactor = || Redactor::new(Arc::clone(secrets));
        let output = |logger, level| Output { logger, level, redactor: redactor(), open: Vec::new() };
        Self {
            log: redactor(),
            stdout: output("task.stdout", Level::Info),
            stderr: output("task.stderr", Level::Error),
            supervisor: redactor(),
        }
    }

    /// A line of the SDK's log.
    pub fn logged(&mut self, line: &[u8], at: Timestamp, out: &mut Vec<u8>) {
        let start = out.len();
        self.log.feed(line, out);
        // No secret in a JSON line reaches over its end.
        self.log.finish(out);
        if out.len() == start {
            return;
        }
        let first_brace = out.get(start) == Some(&b'{');
        if first_brace && !contains(&out[start..], b"\"exception\":") {
            out.push(b'\n');
            return;
        }
        let text = out.split_off(start);
        match serde_json::from_slice::<Map<String, Value>>(&text) {
            Ok(mut line) => {
                // The name under which Airflow's readers look for it
                // (`airflow/sdk/execution_time/supervisor.py: process_log_messages_from_subprocess`).
                if let Some(exception) = line.remove("exception") {
                    line.insert("error_detail".into(), exception);
                }
                out.extend_from_slice(Value::Object(line).to_string().as_bytes());
                out.push(b'\n');
            }
            // A line that was too long for one piece, or is no JSON: kept as text.
            Err(_) => push_line(out, at, Level::Info, "task", &String::from_utf8_lossy(&text), Map::new()),
        }
    }

    /// Bytes of the process's stdout.
    pub fn stdout(&mut self, bytes: &[u8], at: Timestamp, out: &mut Vec<u8>) {
        self.stdout.feed(bytes, at, out);
    }

    /// Bytes of the process's stderr.
    pub fn stderr(&mut self, bytes: &[u8], at: Timestamp, out: &mut Vec<u8>) {
        self.stderr.feed(bytes, at, out);
    }

    /// A line of the worker's own.
    pub fn say(
        &mut self,
        level: Level,
        event: &str,
        more: Map<String, Value>,
        at: Timestamp,
        out: &mut Vec<u8>,
    ) {
        let mut line = Vec::new();
        push_line(&mut line, at, level, SUPERVISOR, event, more);
        self.supervisor.feed(&line, out);
        self.supervisor.finish(out);
    }

    /// What is left without a line end: the process is over.
    pub fn finish(&mut self, at: Timestamp, out: &mut Vec<u8>) {
        self.stdout.finish(at, out);
        self.stderr.finish(at, out);
    }
}

impl Output {
    fn feed(&mut self, bytes: &[u8], at: Timestamp, out: &mut Vec<u8>) {
        let searched = self.open.len();
        self.redactor.feed(bytes, &mut self.open);
        self.cut(searched, at, out);
    }

    fn finish(&mut self, at: Timestamp, out: &mut Vec<u8>) {
        let searched = self.open.len();
        self.redactor.finish(&mut self.open);
        self.cut(searched, at, out);
        if !self.open.is_empty() {
            let rest = std::mem::take(&mut self.open);
            self.push(&rest, at, out);
        }
    }

    /// Writes the whole lines; only what arrived behind `searched` may hold line ends.
    fn cut(&mut self, mut searched: usize, at: Timestamp, out: &mut Vec<u8>) {
        let open = std::mem::take(&mut self.open);
        let mut from = 0;
        while let Some(length) = open[searched..].iter().position(|&byte| byte == b'\n') {
            self.push(&open[from..searched + length], at, out);
            searched += length + 1;
            from = searched;
        }
        while open.len() - from > MAX_LINE_BYTES {
            self.push(&open[from..from + MAX_LINE_BYTES], at, out);
            from += MAX_LINE_BYTES;
        }
        self.open = open;
        self.open.drain(..from);
    }

    fn push(&self, line: &[u8], at: Timestamp, out: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line);
        push_line(out, at, self.level, self.logger, text.trim_end(), Map::new());
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at() -> Timestamp {
        "2026-01-02T03:04:05.5Z".parse().unwrap()
    }

    fn read(out: &[u8]) -> Vec<Value> {
        out.split(|&b| b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    #[test]
    fn output_becomes_lines_of_the_sdks_shape_wherever_its_pieces_end() {
        let mut lines = Lines::new(&Arc::new(Secrets::new(5, &[])));
        let mut out = Vec::new();
        lines.stdout(b"one\ntw", at(), &mut out);
        lines.stderr(b"bad\n", at(), &mut out);
        lines.stdout(b"o\r\nlast", at(), &mut out);
        lines.finish(at(), &mut out);
        let found: Vec<_> =
            read(&out).iter().map(|l| format!("{}:{}:{}", l["logger"], l["level"], l["event"])).collect();
        assert_eq!(
            found,
            [
                r#""task.stdout":"info":"one""#,
                r#""task.stderr":"error":"bad""#,
                r#""task.stdout":"info":"two""#,
                r#""task.stdout":"info":"last""#
            ]
        );
        assert_eq!(read(&out)[0]["timestamp"], "2026-01-02T03:04:05.500000Z");
    }

    #[test]
    fn a_secret_over_several_lines_of_output_leaves_no_part_of_itself() {
        let secrets = Arc::new(Secrets::new(5, &[]));
        secrets.add_text("-----BEGIN\nabcdef\n-----END");
        let mut lines = Lines::new(&secrets);
        let mut out = Vec::new();
        lines.stdout(b"key:\n-----BEGIN\nabc", at(), &mut out);
        lines.stdout(b"def\n-----END\nafter\n", at(), &mut out);
        lines.finish(at(), &mut out);
        let events: Vec<_> = read(&out).iter().map(|l| l["event"].as_str().unwrap().to_owned()).collect();
        assert_eq!(events, ["key:", "***", "after"]);
    }

    #[test]
    fn the_sdks_lines_stay_as_they_are_but_for_the_name_of_the_traceback() {
        let mut lines = Lines::new(&Arc::new(Secrets::new(5, &[])));
        let mut out = Vec::new();
        lines.logged(br#"{"event":"hello","level":"info","x":1}"#, at(), &mut out);
        lines.logged(br#"{"event":"failed","exception":[{"exc_type":"E"}]}"#, at(), &mut out);
        lines.logged(b"no json", at(), &mut out);
        assert!(out.starts_with(b"{\"event\":\"hello\",\"level\":\"info\",\"x\":1}\n"));
        let read = read(&out);
        assert_eq!(read[1]["error_detail"], json!([{"exc_type": "E"}]));
        assert_eq!(read[2]["event"], "no json");
    }
}
