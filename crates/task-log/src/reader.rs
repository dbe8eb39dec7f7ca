use std::fmt;

use gust_model::Epoch;
use gust_ports::{ObjectStore, ObjectStoreError};
use serde_json::{Value, json};
use thiserror::Error;

use crate::{ChunkError, ChunkName, TryLog, decode_chunk};

/// How many chunk names one listing asks for.
const LISTING: usize = 1000;

/// Where a reader stands: behind this chunk. Its text form travels through pages and the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The epoch of the last chunk read.
    pub epoch: Epoch,
    /// Its sequence.
    pub seq: u32,
    /// Whether it was that epoch's last.
    pub is_end: bool,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}{}", self.epoch, self.seq, if self.is_end { "-end" } else { "" })
    }
}

impl std::str::FromStr for LogPosition {
    type Err = ReadError;

    fn from_str(text: &str) -> Result<Self, ReadError> {
        let bad = || ReadError::BadPosition(text.to_owned());
        let (stem, is_end) = text.strip_suffix("-end").map_or((text, false), |stem| (stem, true));
        let (epoch, seq) = stem.split_once('-').ok_or_else(bad)?;
        Ok(Self {
            epoch: Epoch(epoch.parse().map_err(|_| bad())?),
            seq: seq.parse().map_err(|_| bad())?,
            is_end,
        })
    }
}

/// A line: the object that the SDK logged (`timestamp`, `level`, `event`, `logger` …).
pub type LogLine = Value;

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub struct LogPage {
    /// The lines, in order. A gap stands among them as a line of level `warning` from `gust.log`.
    pub lines: Vec<LogLine>,
    /// Where the next read starts; `None` if nothing was ever written.
    pub position: Option<LogPosition>,
    /// Whether the last epoch written so far is closed. A deferred task's log goes on in a later epoch all the same.
    pub is_ended: bool,
    /// Whether the page was cut at its limit and more is there already.
    pub has_more: bool,
}

/// Why a log cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The store did not give it.
    #[error(transparent)]
    Store(#[from] ObjectStoreError),
    /// The position is not one that a page gave.
    #[error("{0:?} is no position in a log; give the one that the last page returned")]
    BadPosition(String),
}

fn remark(event: &str) -> LogLine {
    json!({ "level": "warning", "logger": "gust.log", "event": event })
}

fn push_lines(lines: &mut Vec<LogLine>, name: ChunkName, packed: &[u8]) {
    match decode_chunk(packed) {
        Ok(text) => {
            for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
                lines.push(serde_json::from_slice(line).unwrap_or_else(
                    // A line that is no JSON is shown as it is rather than lost.
                    |_| json!({ "event": String::from_utf8_lossy(line) }),
                ));
            }
        }
        Err(error) => lines.push(remark(&damaged(name, &error))),
    }
}

fn damaged(name: ChunkName, error: &ChunkError) -> String {
    format!("part {} of this log cannot be read: {error}", name.file_name())
}

/// Reads a try's log behind `after`, from its start if that is `None`: chunk by chunk until `max_lines` are there or
/// no chunk is left. A chunk is never cut.
///
/// # Errors
/// [`ReadError::Store`] when the object store fails; damaged chunks become lines that say so.
pub async fn read_log(
    store: &dyn ObjectStore,
    log: &TryLog,
    after: Option<LogPosition>,
    max_lines: usize,
) -> Result<LogPage, ReadError> {
    let prefix = log.prefix();
    let mut page = LogPage {
        lines: Vec::new(),
        position: after,
        is_ended: after.is_some_and(|position| position.is_end),
        has_more: false,
    };
    let mut last_key = match after {
        Some(LogPosition { epoch, seq, is_end }) => Some(log.key(ChunkName { epoch, seq, is_end })?),
        None => None,
    };
    loop {
        let names = store.list(&prefix, last_key.as_ref(), LISTING).await?;
        let is_last_listing = names.len() < LISTING;
        for object in names {
            let name = object.key.as_str().strip_prefix(&prefix).and_then(ChunkName::parse);
            last_key = Some(object.key.clone());
            let Some(name) = name else { continue };
            if page.lines.len() >= max_lines {
                page.has_more = true;
                return Ok(page);
            }
            if let Some(gap) = gap_before(page.position, name) {
                page.lines.push(remark(&gap));
            }
            match store.read(&object.key).await? {
                Some(packed) => push_lines(&mut page.lines, name, &packed),
                None => {
                    page.lines.push(remark(&format!("part {} of this log was removed", name.file_name())));
                }
            }
            page.position = Some(LogPosition { epoch: name.epoch, seq: name.seq, is_end: name.is_end });
            page.is_ended = name.is_end;
        }
        if is_last_listing {
            return Ok(page);
        }
    }
}

/// What is missing between the last chunk read and this one.
fn gap_before(position: Option<LogPosition>, name: ChunkName) -> Option<String> {
    let expected = match position {
        Some(last) if last.epoch == name.epoch => last.seq + 1,
        Some(last) if !last.is_end => {
            return Some(format!(
                "the worker of epoch {} ended without closing its log; lines may be missing here",
                last.epoch
            ));
        }
        _ => 0,
    };
    (name.seq > expected).then(|| {
        format!("parts {expected} to {} of epoch {} are missing from this log", name.seq - 1, name.epoch)
    })
}

#[cfg(test)]
mod tests {
    use gust_local::FolderStore;
    use gust_model::MapIndex;

    use super::*;
    use crate::encode_chunk;

    fn log() -> TryLog {
        TryLog {
            dag_id: "d".into(),
            run_id: "r".into(),
            task_id: "t".into(),
            map_index: MapIndex::UNMAPPED,
            try_number: 1,
        }
    }

    async fn put(store: &FolderStore, epoch: i64, seq: u32, is_end: bool, lines: &[&str]) {
        let text = lines.iter().map(|event| json!({ "event": event }).to_string() + "\n").collect::<String>();
        let key = log().key(ChunkName { epoch: Epoch(epoch), seq, is_end }).unwrap();
        store.create(&key, encode_chunk(text.as_bytes()).unwrap()).await.unwrap();
    }

    fn events(page: &LogPage) -> Vec<&str> {
        page.lines.iter().map(|line| line["event"].as_str().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_reader_follows_by_position_and_never_reads_a_chunk_twice() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        assert_eq!(read_log(&store, &log(), None, 100).await.unwrap().position, None);
        put(&store, 1, 0, false, &["a", "b"]).await;
        let first = read_log(&store, &log(), None, 100).await.unwrap();
        assert_eq!(events(&first), ["a", "b"]);
        assert!(!first.is_ended);
        put(&store, 1, 1, true, &["c"]).await;
        let position = first.position.unwrap().to_string().parse().unwrap();
        let second = read_log(&store, &log(), Some(position), 100).await.unwrap();
        assert_eq!(events(&second), ["c"]);
        assert!(second.is_ended);
        let third = read_log(&store, &log(), second.position, 100).await.unwrap();
        assert!(third.lines.is_empty() && third.is_ended);
    }

    #[tokio::test]
    async fn epochs_follow_one_another_past_nine_and_gaps_are_marked() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        put(&store, 9, 0, true, &["first"]).await;
        put(&store, 10, 0, false, &["second"]).await;
        put(&store, 10, 2, false, &["fourth"]).await;
        put(&store, 11, 0, true, &["successor"]).await;
        let page = read_log(&store, &log(), None, 100).await.unwrap();
        let events = events(&page);
        assert_eq!(events[0..2], ["first", "second"]);
        assert!(events[2].contains("parts 1 to 1 of epoch 10 are missing"), "{}", events[2]);
        assert!(events[4].contains("ended without closing"), "{}", events[4]);
        assert_eq!(events[5], "successor");
        assert!(page.is_ended);
    }

    #[tokio::test]
    async fn a_damaged_chunk_is_said_and_the_rest_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let key = log().key(ChunkName { epoch: Epoch(1), seq: 0, is_end: false }).unwrap();
        store.create(&key, bytes::Bytes::from_static(b"not zstd")).await.unwrap();
        put(&store, 1, 1, true, &["rest"]).await;
        let page = read_log(&store, &log(), None, 100).await.unwrap();
        assert!(events(&page)[0].contains("cannot be read"));
        assert_eq!(events(&page)[1], "rest");
    }

    #[tokio::test]
    async fn a_page_ends_at_its_limit_and_says_that_more_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        put(&store, 1, 0, false, &["a", "b"]).await;
        put(&store, 1, 1, true, &["c"]).await;
        let page = read_log(&store, &log(), None, 1).await.unwrap();
        assert_eq!(events(&page), ["a", "b"]);
        assert!(page.has_more && !page.is_ended);
    }
}
