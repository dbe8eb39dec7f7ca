//! One zygote's control socket: asking for children, hearing of their ends.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use crate::control::{Command, Event, Kind, MAX_EVENT_BYTES, Ready, send_with_fds};
use crate::{Error, Exit, Exited, Usage, frame};

/// What to fork.
#[derive(Debug)]
pub(crate) struct Order {
    pub kind: Kind,
    pub env: BTreeMap<String, String>,
    pub bundle_name: String,
    /// Empty where the zygote has made the bundle known already.
    pub bundle_path: String,
    pub rel_path: String,
}

/// A child that exists.
#[derive(Debug)]
pub(crate) struct Forked {
    pub pid: u32,
    pub exit: oneshot::Receiver<Exited>,
}

struct Outgoing {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

struct Pending {
    nested: bool,
    forked: oneshot::Sender<Result<Forked, Error>>,
}

struct Running {
    nested: bool,
    exit: oneshot::Sender<Exited>,
}

#[derive(Default)]
struct State {
    next_rid: u64,
    pending: HashMap<u64, Pending>,
    running: HashMap<u32, Running>,
    gone: bool,
}

/// The owner's end of a zygote. Dropping the last handle ends the zygote and whatever still runs under it, so every
/// child keeps one.
pub(crate) struct Zygote {
    outgoing: mpsc::UnboundedSender<Outgoing>,
    state: Arc<Mutex<State>>,
}

impl Zygote {
    /// Takes over a zygote's control socket. The receiver yields the zygote's first word, or ends without one.
    pub(crate) fn connect(control: StdUnixStream) -> Result<(Arc<Self>, oneshot::Receiver<Ready>), Error> {
        let context = || Error::io("setting up a zygote's control socket");
        control.set_nonblocking(true).map_err(context())?;
        let (read, write) = UnixStream::from_std(control).map_err(context())?.into_split();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let (ready_tx, ready) = oneshot::channel();
        let state = Arc::new(Mutex::new(State::default()));
        tokio::spawn(write_commands(write, queue));
        tokio::spawn(read_events(read, Arc::clone(&state), ready_tx));
        Ok((Arc::new(Self { outgoing, state }), ready))
    }

    /// Whether the zygote can no longer be used.
    pub(crate) fn is_gone(&self) -> bool {
        lock(&self.state).gone
    }

    /// Children that run or are being forked.
    pub(crate) fn load(&self) -> usize {
        let state = lock(&self.state);
        state.pending.len() + state.running.len()
    }

    /// Forks one child, which takes over the descriptors.
    pub(crate) async fn fork(&self, order: &Order, fds: Vec<OwnedFd>) -> Result<Forked, Error> {
        let (forked_tx, forked) = oneshot::channel();
        let rid = {
            let mut state = lock(&self.state);
            if state.gone {
                return Err(Error::ZygoteGone);
            }
            state.next_rid += 1;
            let rid = state.next_rid;
            state.pending.insert(rid, Pending { nested: order.kind == Kind::File, forked: forked_tx });
            rid
        };
        let command = Command::Fork {
            rid,
            kind: order.kind,
            env: &order.env,
            bundle_name: &order.bundle_name,
            bundle_path: &order.bundle_path,
            rel_path: &order.rel_path,
        };
        self.send(&command, fds)?;
        forked.await.unwrap_or(Err(Error::ZygoteGone))
    }

    /// Signals a child and its process group; SIGKILL reaches all its descendants, whatever group they are in.
    pub(crate) fn kill(&self, pid: u32, signal: Signal) {
        let tree = signal == Signal::SIGKILL;
        if self.send(&Command::Kill { pid, signal: signal as i32, tree }, Vec::new()).is_err() {
            debug!(pid, "no zygote is left to pass a signal on; its end has killed the child");
        }
    }

    fn send(&self, command: &Command<'_>, fds: Vec<OwnedFd>) -> Result<(), Error> {
        let bytes = frame::encode(command)?;
        self.outgoing.send(Outgoing { bytes, fds }).map_err(|_| Error::ZygoteGone)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // The maps hold plain values that no panic leaves half changed.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write_commands(write: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Outgoing>) {
    while let Some(Outgoing { bytes, fds }) = queue.recv().await {
        if let Err(problem) = send_with_fds(write.as_ref(), &bytes, &fds).await {
            debug!(%problem, "a zygote took no more commands");
            return;
        }
    }
}

async fn read_events(mut read: OwnedReadHalf, state: Arc<Mutex<State>>, ready: oneshot::Sender<Ready>) {
    let mut ready = Some(ready);
    loop {
        let payload = match frame::read_payload(&mut read, MAX_EVENT_BYTES).await {
            Ok(Some(payload)) => payload,
            Ok(None) => break,
            Err(problem) => {
                debug!(%problem, "a zygote's control socket broke");
                break;
            }
        };
        match rmp_serde::from_slice(&payload) {
            Ok(Event::Ready(word)) => {
                if let Some(ready) = ready.take() {
                    // Nobody waits any more where starting took too long; the zygote is dropped then.
                    drop(ready.send(word));
                }
            }
            Ok(event) => apply(&mut lock(&state), event),
            Err(problem) => warn!(%problem, "a zygote sent an event that is none"),
        }
    }
    let mut state = lock(&state);
    state.gone = true;
    for (_, pending) in state.pending.drain() {
        drop(pending.forked.send(Err(Error::ZygoteGone)));
    }
    for (pid, running) in state.running.drain() {
        // File zygotes have an owner's socket of their own and outlive the base; a task does not outlive its zygote.
        if !running.nested
            && let Ok(raw) = i32::try_from(pid)
        {
            let _ = killpg(Pid::from_raw(raw), Signal::SIGKILL);
        }
        let _ = running.exit.send(Exited { exit: Exit::Lost, usage: Usage::default() });
    }
}

fn apply(state: &mut State, event: Event) {
    match event {
        Event::Ready(_) => {}
        Event::Forked { rid, pid } => {
            if let Some(Pending { nested, forked }) = state.pending.remove(&rid) {
                let (exit_tx, exit) = oneshot::channel();
                state.running.insert(pid, Running { nested, exit: exit_tx });
                drop(forked.send(Ok(Forked { pid, exit })));
            }
        }
        Event::ForkFailed { rid, error } => {
            if let Some(pending) = state.pending.remove(&rid) {
                drop(pending.forked.send(Err(Error::Fork(error))));
            }
        }
        Event::Ended { pid, code, signal, user_s, system_s, max_rss_kb } => {
            if let Some(running) = state.running.remove(&pid) {
                let exit = match (code, signal) {
                    (_, Some(signal)) => Exit::Signal(signal),
                    (Some(code), None) => Exit::Code(code),
                    (None, None) => Exit::Lost,
                };
                let usage = Usage { user_s, system_s, max_rss_kb };
                let _ = running.exit.send(Exited { exit, usage });
            }
        }
    }
}
