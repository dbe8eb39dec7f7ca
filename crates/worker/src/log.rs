//! Shipping a try's log as create-only objects (DESIGN §5).

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use gust_model::Epoch;
use gust_ports::{Clock, ObjectStore, ObjectStoreError, PutOutcome};
use gust_task_log::{ChunkName, TryLog, encode_chunk};
use serde_json::{Map, Value};
use tracing::warn;

use crate::{
    config::WorkerConfig,
    lines::{Level, Lines},
    redact::Secrets,
    services::Services,
};

/// How long the last object may take to be written before the try ends without it.
const LAST_OBJECT_LIMIT: Duration = Duration::from_mins(1);
/// The first wait after a failed put; it doubles.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// The longest wait between puts.
const LAST_RETRY: Duration = Duration::from_secs(5);

/// How many names one listing asks for.
const LISTING: usize = 1000;

/// A put under way.
pub(crate) type Upload = BoxFuture<'static, Result<(), ObjectStoreError>>;

/// The log of one claim of a try.
pub(crate) struct LogWriter {
    objects: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    log: TryLog,
    epoch: Epoch,
    seq: u32,
    lines: Lines,
    buffer: Vec<u8>,
    /// When the oldest line in the buffer came, on the monotonic clock.
    since: Option<Duration>,
    interval: Duration,
    is_followed: bool,
    interval_min: Duration,
    interval_max: Duration,
    chunk_bytes: usize,
    upload: Option<Upload>,
}

impl LogWriter {
    pub(crate) fn new(
        services: &Services,
        config: &WorkerConfig,
        log: TryLog,
        epoch: Epoch,
        secrets: &Arc<Secrets>,
    ) -> Self {
        Self {
            objects: Arc::clone(&services.objects),
            clock: Arc::clone(&services.clock),
            log,
            epoch,
            seq: 0,
            lines: Lines::new(secrets),
            buffer: Vec::new(),
            since: None,
            interval: config.log_interval_min,
            is_followed: false,
            interval_min: config.log_interval_min,
            interval_max: config.log_interval_max,
            chunk_bytes: config.log_chunk_bytes,
            upload: None,
        }
    }

    pub(crate) fn logged(&mut self, line: &[u8]) {
        self.lines.logged(line, self.clock.now(), &mut self.buffer);
        self.note();
    }

    pub(crate) fn stdout(&mut self, bytes: &[u8]) {
        self.lines.stdout(bytes, self.clock.now(), &mut self.buffer);
        self.note();
    }

    pub(crate) fn stderr(&mut self, bytes: &[u8]) {
        self.lines.stderr(bytes, self.clock.now(), &mut self.buffer);
        self.note();
    }

    /// A line of the worker's own.
    pub(crate) fn say(&mut self, level: Level, event: &str, more: Map<String, Value>) {
        self.lines.say(level, event, more, self.clock.now(), &mut self.buffer);
        self.note();
    }

    fn note(&mut self) {
        if self.since.is_none() && !self.buffer.is_empty() {
            self.since = Some(self.clock.monotonic());
        }
    }

    /// Somebody follows the log, or nobody does any more.
    pub(crate) fn set_followed(&mut self, is_followed: bool) {
        self.is_followed = is_followed;
        if is_followed {
            self.interval = self.interval_min;
        }
    }

    /// When the buffer has to be written, on the monotonic clock.
    pub(crate) fn due_at(&self) -> Option<Duration> {
        if self.upload.is_some() {
            return None;
        }
        let since = self.since?;
        Some(if self.buffer.len() >= self.chunk_bytes { since } else { since + self.interval })
    }

    /// Whether so much waits to be written that nothing more should be read for now.
    pub(crate) fn is_full(&self) -> bool {
        self.upload.is_some() && self.buffer.len() >= 4 * self.chunk_bytes
    }

    /// Begins to write the buffer if it is due.
    pub(crate) fn start_if_due(&mut self) {
        if self.due_at().is_none_or(|due| due > self.clock.monotonic()) {
            return;
        }
        let lines = std::mem::take(&mut self.buffer);
        self.since = None;
        if !self.is_followed {
            self.interval = (self.interval * 2).min(self.interval_max);
        }
        self.upload = self.put(&lines, false);
    }

    /// The put under way, for the loop to wait on; it must be given back by [`LogWriter::uploaded`].
    pub(crate) fn upload(&mut self) -> &mut Option<Upload> {
        &mut self.upload
    }

    /// The put under way is over.
    pub(crate) fn uploaded(&mut self, result: Result<(), ObjectStoreError>) {
        self.upload = None;
        if let Err(problem) = result {
            // The reader shows the missing sequence as a gap; the task is not to blame.
            warn!(%problem, "a part of a task's log is lost");
        }
    }

    fn put(&mut self, lines: &[u8], is_end: bool) -> Option<Upload> {
        let name = ChunkName { epoch: self.epoch, seq: self.seq, is_end };
        self.seq += 1;
        let packed = match encode_chunk(lines) {
            Ok(packed) => packed,
            Err(problem) => {
                warn!(%problem, "a part of a task's log cannot be packed");
                return None;
            }
        };
        let key = match self.log.key(name) {
            Ok(key) => key,
            Err(problem) => {
                warn!(%problem, "a task's log has no place in the object store");
                return None;
            }
        };
        metrics::counter!("gust_log_bytes_total").increment(lines.len() as u64);
        let (objects, clock) = (Arc::clone(&self.objects), Arc::clone(&self.clock));
        Some(Box::pin(async move {
            let mut wait = FIRST_RETRY;
            let started = clock.monotonic();
            loop {
                match objects.create(&key, packed.clone()).await {
                    Ok(PutOutcome::Created | PutOutcome::AlreadySame) => return Ok(()),
                    Ok(PutOutcome::AlreadyDifferent) => {
                        warn!(%key, "a part of a task's log is there already, with other content");
                        return Ok(());
                    }
                    Err(problem @ ObjectStoreError::Unavailable { .. })
                        if clock.monotonic().saturating_sub(started) < LAST_OBJECT_LIMIT =>
                    {
                        warn!(%problem, "a part of a task's log could not be written yet");
                        clock.sleep(wait).await;
                        wait = (wait * 2).min(LAST_RETRY);
                    }
                    Err(problem) => return Err(problem),
                }
            }
        }))
    }

    /// Whether there is anything to be written, or was.
    pub(crate) fn has_lines(&self) -> bool {
        self.seq > 0 || !self.buffer.is_empty()
    }

    /// Goes on behind what the claim of this epoch has written, its end included: a trigger's lines follow those of
    /// the try that waits for it.
    pub(crate) async fn continue_behind_end(&mut self) {
        if self.seq > 0 {
            return;
        }
        let prefix = self.log.prefix();
        let mut after = None;
        loop {
            let names = match self.objects.list(&prefix, after.as_ref(), LISTING).await {
                Ok(names) => names,
                Err(problem) => {
                    warn!(%problem, "a task's log cannot be listed; a part of it may be lost");
                    return;
                }
            };
            for object in &names {
                let name = object.key.as_str().strip_prefix(&prefix).and_then(ChunkName::parse);
                if let Some(name) = name.filter(|name| name.epoch == self.epoch) {
                    self.seq = self.seq.max(name.seq + 1);
                }
            }
            if names.len() < LISTING {
                return;
            }
            after = names.last().map(|object| object.key.clone());
        }
    }

    /// Writes what is left, as the last object.
    pub(crate) async fn end(&mut self) {
        if let Some(upload) = self.upload.take() {
            let result = upload.await;
            self.uploaded(result);
        }
        self.lines.finish(self.clock.now(), &mut self.buffer);
        let lines = std::mem::take(&mut self.buffer);
        if let Some(upload) = self.put(&lines, true)
            && let Err(problem) = upload.await
        {
            warn!(%problem, "the end of a task's log is lost");
        }
    }
}
