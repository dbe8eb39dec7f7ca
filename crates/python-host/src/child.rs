//! A child of a zygote: its requests, its log, its output and its end, as one stream of events.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
pub use nix::sys::signal::Signal;
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::drain::Draining;
use crate::messages::{ErrorResponse, ErrorType, FromTask, Reply, ToTask};
use crate::zygote::{Order, Zygote};
use crate::{Error, control, frame};

/// Events that may wait for the consumer; beyond it the child's own writes block.
const QUEUE_EVENTS: usize = 64;
/// A log line longer than this arrives in pieces, in bytes.
const MAX_LINE_BYTES: usize = 1024 * 1024;
/// Bytes taken from a stream at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What a child does.
#[derive(Debug)]
pub enum Event {
    /// It asks for something and blocks until [`Child::reply`].
    Request(Request),
    /// One line of its structured log, JSON without the newline. UNMASKED: secrets must be redacted before storing.
    Log(Bytes),
    /// Bytes that it, or a process below it, wrote to stdout. Chunks end anywhere.
    Stdout(Bytes),
    /// The same of stderr.
    Stderr(Bytes),
    /// Its request socket carried something that is no frame. It cannot be served any more and should be killed.
    Broken(Error),
    /// It has ended and its streams are drained. The last event.
    Exited(Exited),
}

/// A request of a child.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// To be given to [`Child::reply`].
    pub id: i64,
    /// What it asks or reports.
    pub body: FromTask,
    /// W3C trace context of the task's span.
    pub carrier: Option<serde_json::Value>,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Its zygote died first, and it was killed.
    Lost,
}

/// A child's end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exited {
    /// How it ended.
    pub exit: Exit,
    /// What it used; all zero where nobody could tell.
    pub usage: Usage,
}

/// Resources that a child used, from `wait4`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU time in user mode, in seconds.
    pub user_s: f64,
    /// CPU time in the kernel, in seconds.
    pub system_s: f64,
    /// Largest resident size in KiB, pages shared with the zygote included.
    pub max_rss_kb: u64,
}

/// A running child. Dropping it before its end kills it with everything below it.
#[derive(Debug)]
pub struct Child {
    events: mpsc::Receiver<Event>,
    handle: ChildHandle,
    ended: bool,
}

/// What can be done to a child from elsewhere than its event loop.
#[derive(Clone)]
pub struct ChildHandle {
    pid: u32,
    zygote: Arc<Zygote>,
    requests: Arc<Mutex<OwnedWriteHalf>>,
}

impl std::fmt::Debug for ChildHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildHandle").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// How a child is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of one request.
    pub frame_bytes: usize,
    /// How long streams stay open after the child's end because something else holds them.
    pub drain: Duration,
}

impl Child {
    /// Forks a child and sends it its first message, under the id 0.
    pub(crate) async fn start<T: Serialize>(
        zygote: &Arc<Zygote>,
        order: &Order,
        first: Option<&T>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let first = first.map(|body| frame::encode(&(0, body))).transpose()?.unwrap_or_default();
        let (requests, requests_theirs) = pair()?;
        let (stdout, stdout_theirs) = pair()?;
        let (stderr, stderr_theirs) = pair()?;
        let (log, log_theirs) = pair()?;
        let forked =
            zygote.fork(order, vec![requests_theirs, stdout_theirs, stderr_theirs, log_theirs]).await?;

        let (requests_read, requests_write) = requests.into_split();
        let (queue, events) = mpsc::channel(QUEUE_EVENTS);
        let (exited_tx, exited) = watch::channel(false);
        let handle = ChildHandle {
            pid: forked.pid,
            zygote: Arc::clone(zygote),
            requests: Arc::new(Mutex::new(requests_write)),
        };
        let streams = Streams { queue: queue.clone(), exited, limits, tracker: TaskTracker::new() };
        // The lock is taken before anybody can reply, so that the first frame is the first.
        let mut writer = Arc::clone(&handle.requests).lock_owned().await;
        tokio::spawn(async move {
            // A child that ended meanwhile says so by its exit.
            drop(writer.write_all(&first).await);
        });
        let requests = Draining::new(requests_read, streams.exited.clone(), limits.drain);
        streams.tracker.spawn(read_requests(requests, handle.clone(), streams.clone()));
        streams.spawn_log(log);
        streams.spawn_output(stdout, Event::Stdout);
        streams.spawn_output(stderr, Event::Stderr);
        tokio::spawn(report_end(forked.exit, exited_tx, streams.tracker, queue));
        Ok(Self { events, handle, ended: false })
    }

    /// The next event; `None` after [`Event::Exited`]. The child waits while nobody takes its events.
    pub async fn next_event(&mut self) -> Option<Event> {
        let event = self.events.recv().await;
        if matches!(event, None | Some(Event::Exited(_))) {
            self.ended = true;
        }
        event
    }

    /// The child's process and process group id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.handle.pid
    }

    /// A handle for replying and killing from elsewhere.
    #[must_use]
    pub fn handle(&self) -> ChildHandle {
        self.handle.clone()
    }

    /// Answers a request. See [`ChildHandle::reply`].
    pub async fn reply(&self, id: i64, reply: impl Into<Reply>) -> Result<(), Error> {
        self.handle.reply(id, reply).await
    }

    /// Answers a request with a failure, which the child raises. See [`ChildHandle::reply`].
    pub async fn reply_error(
        &self,
        id: i64,
        error: ErrorType,
        detail: serde_json::Value,
    ) -> Result<(), Error> {
        self.handle.reply(id, Reply::error(error, detail)).await
    }

    /// Signals the child. See [`ChildHandle::kill`].
    pub fn kill(&self, signal: Signal) {
        self.handle.kill(signal);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            self.handle.kill(Signal::SIGKILL);
        }
    }
}

impl ChildHandle {
    /// The child's process and process group id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Answers a request.
    ///
    /// # Errors
    /// [`Error::ChildGone`] where the child no longer reads, which is no failure of the caller's;
    /// [`Error::MalformedFrame`] where the reply cannot be written.
    pub async fn reply(&self, id: i64, reply: impl Into<Reply>) -> Result<(), Error> {
        let nothing: Option<ToTask> = None;
        let bytes = match reply.into() {
            Reply::Body(ToTask::Unknown { raw, .. }) => frame::encode(&(id, raw))?,
            Reply::Body(body) => frame::encode(&(id, body))?,
            Reply::Empty => frame::encode(&(id, nothing))?,
            Reply::Error(error) => frame::encode(&(id, nothing, ToTask::ErrorResponse(error)))?,
        };
        self.write(&bytes).await
    }

    /// Signals the child and its process group, asynchronously. SIGKILL reaches all its descendants, whatever session
    /// they are in. A child that has ended is left alone, whoever bears its number now.
    pub fn kill(&self, signal: Signal) {
        self.zygote.kill(self.pid, signal);
    }

    pub(crate) async fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        self.requests.lock().await.write_all(bytes).await.map_err(|_| Error::ChildGone)
    }

    async fn send_log_fd(&self, id: i64, fd: OwnedFd) -> Result<(), Error> {
        let bytes = frame::encode(&(id, json!({"type": "SentFDs", "fds": [0]})))?;
        let writer = self.requests.lock().await;
        control::send_with_fds(writer.as_ref(), &bytes, &[fd]).await.map_err(|_| Error::ChildGone)
    }
}

/// A connected pair: ours for tokio, theirs blocking, as Python expects it.
fn pair() -> Result<(UnixStream, OwnedFd), Error> {
    let context = || Error::io("making a child's sockets");
    let (ours, theirs) = StdUnixStream::pair().map_err(context())?;
    ours.set_nonblocking(true).map_err(context())?;
    Ok((UnixStream::from_std(ours).map_err(context())?, theirs.into()))
}

/// What the readers of one child share.
#[derive(Clone)]
struct Streams {
    queue: mpsc::Sender<Event>,
    exited: watch::Receiver<bool>,
    limits: Limits,
    tracker: TaskTracker,
}

impl Streams {
    fn spawn_log(&self, stream: UnixStream) {
        let reader = Draining::new(stream, self.exited.clone(), self.limits.drain);
        self.tracker.spawn(read_lines(reader, self.queue.clone()));
    }

    fn spawn_output(&self, stream: UnixStream, event: fn(Bytes) -> Event) {
        let mut reader = Draining::new(stream, self.exited.clone(), self.limits.drain);
        let queue = self.queue.clone();
        self.tracker.spawn(async move {
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(CHUNK_BYTES);
                match reader.read_buf(&mut buffer).await {
                    Ok(count) if count > 0 => {}
                    _ => return,
                }
                if queue.send(event(buffer.split().freeze())).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn read_requests<R: tokio::io::AsyncRead + Unpin>(mut from: R, handle: ChildHandle, streams: Streams) {
    loop {
        let frame = match frame::read_payload(&mut from, streams.limits.frame_bytes).await {
            Ok(Some(payload)) => frame::decode_request(&payload),
            Ok(None) | Err(Error::Io { .. }) => return,
            // The end of a killed child inside a frame is its exit, not a breach of the protocol.
            Err(_) if *streams.exited.borrow() => return,
            Err(problem) => Err(problem),
        };
        let event = match frame {
            Ok(frame) => {
                let body = FromTask::from_json(frame.body);
                if matches!(body, FromTask::ResendLoggingFD(_)) {
                    resend_log(frame.id, &handle, &streams).await;
                    continue;
                }
                Event::Request(Request { id: frame.id, body, carrier: frame.carrier })
            }
            Err(problem) => Event::Broken(problem),
        };
        let broken = matches!(event, Event::Broken(_));
        if streams.queue.send(event).await.is_err() || broken {
            return;
        }
    }
}

/// A child that re-executed itself (sudo, virtualenv) asks for its log channel anew.
async fn resend_log(id: i64, handle: &ChildHandle, streams: &Streams) {
    let sent = match pair() {
        Ok((ours, theirs)) => {
            streams.spawn_log(ours);
            handle.send_log_fd(id, theirs).await
        }
        Err(problem) => {
            let response = ErrorResponse { error: ErrorType::GenericError, detail: None };
            drop(handle.reply(id, Reply::Error(response)).await);
            Err(problem)
        }
    };
    if let Err(problem) = sent {
        tracing::warn!(%problem, pid = handle.pid, "a child's log channel could not be sent again");
    }
}

async fn read_lines<R: tokio::io::AsyncRead + Unpin>(mut from: R, queue: mpsc::Sender<Event>) {
    let mut buffer = BytesMut::new();
    // Bytes at the front that hold no newline: only what arrives is searched.
    let mut searched = 0;
    loop {
        buffer.reserve(CHUNK_BYTES);
        let ended = !matches!(from.read_buf(&mut buffer).await, Ok(count) if count > 0);
        while let Some(at) = buffer[searched..].iter().position(|byte| *byte == b'\n') {
            let mut line = buffer.split_to(searched + at + 1);
            line.truncate(line.len() - 1);
            searched = 0;
            if queue.send(Event::Log(line.freeze())).await.is_err() {
                return;
            }
        }
        searched = buffer.len();
        if (ended && !buffer.is_empty()) || buffer.len() > MAX_LINE_BYTES {
            searched = 0;
            if queue.send(Event::Log(buffer.split().freeze())).await.is_err() {
                return;
            }
        }
        if ended {
            return;
        }
    }
}

async fn report_end(
    exit: oneshot::Receiver<Exited>,
    exited_tx: watch::Sender<bool>,
    tracker: TaskTracker,
    queue: mpsc::Sender<Event>,
) {
    let ended = exit.await.unwrap_or(Exited { exit: Exit::Lost, usage: Usage::default() });
    exited_tx.send_replace(true);
    tracker.close();
    tracker.wait().await;
    drop(queue.send(Event::Exited(ended)).await);
}
