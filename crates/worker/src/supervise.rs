//! Watching over one process: its requests, its log, its lease, its time.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use gust_model::{AttemptId, Epoch, TaskInstanceId};
use gust_ports::{
    MetastoreError,
    metastore::{Renewal, TxMode},
};
use gust_python_host::{Event, Exit, Exited, Request, Signal, Usage, messages::FromTask};
use serde_json::{Map, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    config::WorkerConfig,
    error::WorkerError,
    lines::Level,
    log::LogWriter,
    outcome::{Killed, Terminal, remark},
    requests::{Answer, Desk},
    services::{Process, Services},
};

/// A request still being served when its process has ended is waited for no longer than this.
const LAST_ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The wait before a renewal that was not answered is asked for again.
const RENEWAL_RETRY: Duration = Duration::from_secs(1);
/// Between SIGTERM and SIGKILL where only a few seconds remain.
const SHORT_CLEANUP: Duration = Duration::from_secs(2);

/// What is renewed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseOf {
    pub(crate) id: TaskInstanceId,
    pub(crate) epoch: Epoch,
    pub(crate) attempt_id: AttemptId,
    /// When it was asked for last with success, on the monotonic clock.
    pub(crate) asked_at: Duration,
}

/// How a process is watched over.
pub(crate) struct Watch {
    pub(crate) services: Services,
    pub(crate) config: Arc<WorkerConfig>,
    pub(crate) desk: Arc<Desk>,
    /// The lease of a try; a callback's is long enough for its whole life.
    pub(crate) lease: Option<LeaseOf>,
    /// How long it may run.
    pub(crate) time_limit: Option<Duration>,
    /// Until when, on the monotonic clock, it must be over: a function's own deadline.
    pub(crate) deadline: Option<Duration>,
    /// Somebody says that the try may have been taken from us.
    pub(crate) revoked: Arc<Notify>,
    /// The worker gives back what it runs.
    pub(crate) shutdown: CancellationToken,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) said: Option<Terminal>,
    pub(crate) exited: Exited,
    pub(crate) killed: Option<Killed>,
}

type Renewing = BoxFuture<'static, (Duration, Result<Option<Renewal>, MetastoreError>)>;
type Answering = BoxFuture<'static, (i64, Answer)>;
type Writing = BoxFuture<'static, Result<(), WorkerError>>;

struct Run<'a> {
    watch: &'a Watch,
    log: &'a mut LogWriter,
    said: Option<Terminal>,
    said_at: Option<Duration>,
    killed: Option<Killed>,
    /// When SIGKILL follows.
    kill_at: Option<Duration>,
    started_at: Duration,
    last_lease: Duration,
    next_renewal: Duration,
    renewing: Option<Renewing>,
    answering: Option<Answering>,
    writing: Option<Writing>,
    asked: VecDeque<Request>,
}

/// Waits for what is under way; for ever if nothing is.
async fn under_way<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

impl Watch {
    /// Watches until the process has ended and all that it asked for is done.
    pub(crate) async fn until_end(&self, process: &mut dyn Process, log: &mut LogWriter) -> Ended {
        let now = self.services.clock.monotonic();
        let last_lease = self.lease.map_or(now, |lease| lease.asked_at);
        let mut run = Run {
            watch: self,
            log,
            said: None,
            said_at: None,
            killed: None,
            kill_at: None,
            started_at: now,
            last_lease,
            next_renewal: last_lease + self.config.lease_ttl / 3,
            renewing: None,
            answering: None,
            writing: None,
            asked: VecDeque::new(),
        };
        let exited = run.serve(process).await;
        run.finish().await;
        if let Some((level, event, more)) = remark(&exited, run.killed) {
            run.log.say(level, &event, more);
        }
        Ended { said: run.said, exited, killed: run.killed }
    }
}

impl Run<'_> {
    async fn serve(&mut self, process: &mut dyn Process) -> Exited {
        let clock = Arc::clone(&self.watch.services.clock);
        loop {
            self.start_what_is_due(process);
            let now = clock.monotonic();
            let wait = self.next_moment().map_or(Duration::from_hours(1), |at| at.saturating_sub(now));
            let can_read = !self.log.is_full();
            let is_live = self.killed.is_none();
            tokio::select! {
                event = process.next_event(), if can_read => match event {
                    Some(Event::Exited(exited)) => return exited,
                    Some(event) => self.take(event, process).await,
                    None => return Exited { exit: Exit::Lost, usage: Usage::default() },
                },
                (id, answer) = under_way(&mut self.answering) => {
                    self.answering = None;
                    self.answered(id, answer, process).await;
                }
                (asked_at, result) = under_way(&mut self.renewing) => {
                    self.renewing = None;
                    self.renewed(asked_at, result, process);
                }
                result = under_way(&mut self.writing) => {
                    self.writing = None;
                    if let Err(error) = result {
                        self.writes_lost(&error, process);
                    }
                }
                result = under_way(self.log.upload()) => self.log.uploaded(result),
                () = self.watch.revoked.notified(), if is_live && self.watch.lease.is_some() => {
                    self.next_renewal = now;
                }
                () = self.watch.shutdown.cancelled(), if is_live => {
                    self.kill(Killed::Shutdown, "The worker shuts down and gives this task back.", process);
                }
                () = clock.sleep(wait) => {}
            }
        }
    }

    /// The next moment at which something has to be done though nothing happens.
    fn next_moment(&self) -> Option<Duration> {
        let config = &self.watch.config;
        let renewal =
            (self.watch.lease.is_some() && self.renewing.is_none() && self.killed != Some(Killed::Revoked))
                .then_some(self.next_renewal);
        let writes = if self.writing.is_none() { self.watch.desk.writes_due_at() } else { None };
        let limits = if self.killed.is_none() {
            [
                self.watch.lease.map(|_| self.last_lease + self.outage_limit()),
                self.watch.time_limit.map(|limit| self.started_at + limit),
                self.said_at.map(|at| at + config.end_overtime),
                self.watch.deadline,
            ]
        } else {
            [None; 4]
        };
        [renewal, writes, self.log.due_at(), self.kill_at].into_iter().chain(limits).flatten().min()
    }

    /// How long after its last renewal a try goes on without one.
    fn outage_limit(&self) -> Duration {
        self.watch.config.outage_grace.max(self.watch.config.lease_ttl)
    }

    fn start_what_is_due(&mut self, process: &dyn Process) {
        let now = self.watch.services.clock.monotonic();
        let config = &self.watch.config;
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.log.say(Level::Error, "The process did not end in time and is killed.", Map::new());
            process.kill(Signal::SIGKILL);
        }
        if self.killed.is_none() {
            let is_past = |at: Option<Duration>| at.is_some_and(|at| at <= now);
            if is_past(self.watch.lease.map(|_| self.last_lease + self.outage_limit())) {
                self.kill(
                    Killed::Outage,
                    "The metastore has been silent for too long; the task is ended.",
                    process,
                );
            } else if is_past(self.watch.deadline) {
                self.kill(
                    Killed::Deadline,
                    "The function that runs this task reaches its time limit.",
                    process,
                );
            } else if is_past(self.said_at.map(|at| at + config.end_overtime)) {
                self.kill(
                    Killed::Overtime,
                    "The process goes on after it has reported its end; it is ended.",
                    process,
                );
            } else if is_past(self.watch.time_limit.map(|limit| self.started_at + limit)) {
                self.kill(
                    Killed::ExecutionTimeout,
                    "The process runs past its execution timeout and is ended.",
                    process,
                );
            }
        }
        self.start_renewal(now);
        self.log.start_if_due();
        if self.writing.is_none()
            && self.answering.is_none()
            && self.killed != Some(Killed::Revoked)
            && self.watch.desk.writes_due_at().is_some_and(|at| at <= now)
        {
            let desk = Arc::clone(&self.watch.desk);
            self.writing = Some(Box::pin(async move { desk.flush().await }));
        }
        if self.answering.is_none()
            && let Some(request) = self.asked.pop_front()
        {
            let desk = Arc::clone(&self.watch.desk);
            self.answering = Some(Box::pin(async move { (request.id, desk.answer(&request.body).await) }));
        }
    }

    fn start_renewal(&mut self, now: Duration) {
        if let Some((asked_at, renewal)) = self.watch.desk.take_renewal() {
            self.log.set_followed(renewal.is_followed);
            self.last_lease = self.last_lease.max(asked_at);
            self.next_renewal = self.next_renewal.max(asked_at + self.watch.config.lease_ttl / 3);
        }
        let Some(lease) = self.watch.lease else { return };
        if self.renewing.is_some() || self.next_renewal > now || self.killed == Some(Killed::Revoked) {
            return;
        }
        let (metastore, ttl) = (Arc::clone(&self.watch.services.metastore), self.watch.config.lease_ttl);
        self.renewing = Some(Box::pin(async move {
            let renewal = async {
                let mut tx = metastore.begin(TxMode::Write).await?;
                let renewal = tx.renew_lease(lease.id, lease.epoch, lease.attempt_id, ttl).await?;
                tx.commit().await?;
                Ok(renewal)
            };
            (now, renewal.await)
        }));
    }

    fn renewed(
        &mut self,
        asked_at: Duration,
        result: Result<Option<Renewal>, MetastoreError>,
        process: &dyn Process,
    ) {
        let now = self.watch.services.clock.monotonic();
        match result {
            Ok(Some(renewal)) => {
                self.last_lease = self.last_lease.max(asked_at);
                self.next_renewal = asked_at + self.watch.config.lease_ttl / 3;
                self.log.set_followed(renewal.is_followed);
            }
            Ok(None) => {
                self.kill(
                    Killed::Revoked,
                    "This try was taken from its worker (cleared, marked or given to another); the task is ended.",
                    process,
                );
                // Whatever else was the reason to end it, nothing of it may be written any more.
                self.killed = Some(Killed::Revoked);
            }
            Err(problem) => {
                metrics::counter!("gust_lease_renewals_failed_total").increment(1);
                warn!(%problem, "a lease could not be renewed yet");
                self.next_renewal = now + RENEWAL_RETRY.min(self.watch.config.lease_ttl / 3);
            }
        }
    }

    async fn take(&mut self, event: Event, process: &dyn Process) {
        match event {
            Event::Request(request) => {
                if let FromTask::Unknown { kind, problem, .. } = &request.body {
                    let more = json!({"request": kind, "problem": problem}).as_object().cloned();
                    self.log.say(
                        Level::Warning,
                        "A request that Gust does not serve",
                        more.unwrap_or_default(),
                    );
                }
                if let Some(said) = Terminal::of(&request.body) {
                    // The first word counts; another one after it would be the protocol's breach, not a correction.
                    self.said.get_or_insert(said);
                    self.said_at.get_or_insert(self.watch.services.clock.monotonic());
                }
                let is_idle = self.asked.is_empty() && self.answering.is_none() && self.writing.is_none();
                if is_idle && is_instant(&request.body) {
                    let answer = self.watch.desk.answer(&request.body).await;
                    self.answered(request.id, answer, process).await;
                } else {
                    self.asked.push_back(request);
                }
            }
            Event::Log(line) => self.log.logged(&line),
            Event::Stdout(bytes) => self.log.stdout(&bytes),
            Event::Stderr(bytes) => self.log.stderr(&bytes),
            Event::Broken(problem) => {
                warn!(%problem, "a task broke the supervisor protocol");
                let text = format!("The process broke the supervisor protocol ({problem}) and is ended.");
                self.kill(Killed::Broken, &text, process);
            }
            Event::Exited(_) => {}
        }
    }

    async fn answered(&mut self, id: i64, answer: Answer, process: &dyn Process) {
        match &answer.fatal {
            Some(WorkerError::Revoked(_)) => {
                self.kill(Killed::Revoked, "This try was taken from its worker; the task is ended.", process);
                self.killed = Some(Killed::Revoked);
            }
            Some(error) => self.writes_lost(error, process),
            None => {}
        }
        if let Err(problem) = process.reply(id, answer.reply).await {
            debug!(%problem, "a reply was not taken");
        }
    }

    fn writes_lost(&mut self, error: &WorkerError, process: &dyn Process) {
        if let WorkerError::Revoked(_) = error {
            self.kill(Killed::Revoked, "This try was taken from its worker; the task is ended.", process);
            self.killed = Some(Killed::Revoked);
            return;
        }
        let text = format!("What the task wrote could not be stored ({error}); it is ended.");
        self.kill(Killed::WritesLost, &text, process);
        if self.killed != Some(Killed::Revoked) {
            self.killed = Some(Killed::WritesLost);
        }
    }

    /// Ends the process: SIGTERM now, SIGKILL later. The first reason stays.
    fn kill(&mut self, reason: Killed, text: &str, process: &dyn Process) {
        if self.killed.is_some() {
            return;
        }
        self.killed = Some(reason);
        self.log.say(Level::Error, text, Map::new());
        process.kill(Signal::SIGTERM);
        let now = self.watch.services.clock.monotonic();
        let cleanup = self.watch.config.killed_task_cleanup_time;
        let grace = if reason == Killed::Deadline { cleanup.min(SHORT_CLEANUP) } else { cleanup };
        self.kill_at = Some(now + grace);
    }

    /// The process has ended: what it asked for is brought to its end.
    async fn finish(&mut self) {
        let clock = Arc::clone(&self.watch.services.clock);
        let rest = async {
            // A write under way holds what an answer waits for, never the other way round.
            if let Some(writing) = self.writing.take()
                && let Err(error) = writing.await
            {
                let reason = if matches!(error, WorkerError::Revoked(_)) {
                    Killed::Revoked
                } else {
                    Killed::WritesLost
                };
                self.killed.get_or_insert(reason);
            }
            if let Some(answering) = self.answering.take()
                && let (_, Answer { fatal: Some(_), .. }) = answering.await
            {
                self.killed.get_or_insert(Killed::WritesLost);
            }
            for request in std::mem::take(&mut self.asked) {
                if self.watch.desk.answer(&request.body).await.fatal.is_some() {
                    self.killed.get_or_insert(Killed::WritesLost);
                }
            }
        };
        tokio::select! {
            () = rest => {}
            () = clock.sleep(LAST_ANSWER_LIMIT) => warn!("a request of an ended process was given up"),
        }
    }
}

/// Whether a request is served without waiting for the metastore, so that no future is needed for it.
fn is_instant(body: &FromTask) -> bool {
    matches!(body, FromTask::MaskSecret(_) | FromTask::SetRenderedFields(_)) || Terminal::of(body).is_some()
}
