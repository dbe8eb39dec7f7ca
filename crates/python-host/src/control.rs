//! Control frames between the host and a zygote; the Python side is `gust_child/wire.py`.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Bytes that a zygote's event may have.
pub(crate) const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// What a zygote is told.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Command<'a> {
    /// Start a child with the descriptors that come along.
    Fork {
        rid: u64,
        kind: Kind,
        env: &'a BTreeMap<String, String>,
        bundle_name: &'a str,
        bundle_path: &'a str,
        rel_path: &'a str,
    },
    /// Send a signal to a child's process group, with `tree` to all its descendants.
    Kill { pid: u32, signal: i32, tree: bool },
}

/// What a child is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Task,
    Callback,
    Parser,
    Triggerer,
    Questions,
    File,
}

/// What a zygote tells.
#[derive(Debug, Deserialize)]
#[serde(tag = "ev", rename_all = "snake_case")]
pub(crate) enum Event {
    Ready(Ready),
    Forked { rid: u64, pid: u32 },
    ForkFailed { rid: u64, error: String },
    Ended { pid: u32, code: Option<i32>, signal: Option<i32>, user_s: f64, system_s: f64, max_rss_kb: u64 },
}

/// A zygote's first word.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Ready {
    pub pid: u32,
    pub sdk_version: String,
    pub api_version: String,
    pub refused: Option<String>,
}

/// Sends bytes whose first carries the descriptors.
pub(crate) async fn send_with_fds(stream: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let ancillary = if raw.is_empty() { &[][..] } else { &rights[..] };
    let mut sent = stream
        .async_io(Interest::WRITABLE, || {
            sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(bytes)], ancillary, MsgFlags::empty(), None)
                .map_err(io::Error::from)
        })
        .await?;
    while sent < bytes.len() {
        stream.writable().await?;
        match stream.try_write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(())
}
