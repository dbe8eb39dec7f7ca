//! A process of Gust that ends with the test.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::waiting::{eventually, keep_looking};

/// How much of what a process wrote is shown when a test fails, in bytes.
const SHOWN_BYTES: usize = 6_000;

/// A running process, with all that it writes in a file.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    written: PathBuf,
}

impl Service {
    /// Starts a process. What it writes is added to `written`.
    pub fn start(name: &str, command: &mut Command, written: PathBuf) -> Self {
        let out = File::options().create(true).append(true).open(&written).expect("a file for the output");
        let err = out.try_clone().expect("a second handle of the output");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, written }
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are small"))
    }

    /// All that was written so far, by this process and those before it with the same file.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.written).unwrap_or_default()).into_owned()
    }

    /// How the process ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked for its end")
    }

    /// Fails the test if the process has ended.
    pub fn check(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended by itself: {status}", self.name);
        }
    }

    /// Asks the process to end, and waits for it.
    ///
    /// # Panics
    /// If it has not ended after `limit`.
    pub async fn stop(&mut self, limit: Duration) -> ExitStatus {
        if let Some(status) = self.ended() {
            return status;
        }
        kill(self.pid(), Signal::SIGTERM).expect("an own child takes signals");
        let what = format!("{} ends when told to", self.name);
        eventually(&what, limit, async || self.ended()).await
    }

    /// Waits for the process to end by itself.
    pub async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        keep_looking(limit, async || self.ended()).await
    }

    /// Ends the process with no chance to say goodbye.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let written = self.written();
            let start = written.floor_char_boundary(written.len().saturating_sub(SHOWN_BYTES));
            eprintln!("--- the end of what {} wrote:\n{}\n---", self.name, &written[start..]);
        }
    }
}
