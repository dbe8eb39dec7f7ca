//! Running triggers in one asyncio child.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::debug;

use crate::control::Kind;
use crate::messages::{FromTask, Reply, TaskInstance};
use crate::{Answers, Child, Error, Event, Exited, Host, Request, Signal, frame};

/// The id of a frame that is a command, not a reply.
const COMMAND: i64 = -1;

/// A trigger to run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trigger {
    /// The caller's number for it.
    pub id: i64,
    /// Dotted path of the class.
    pub classpath: String,
    /// Keyword arguments as `DeferTask` brought them (serde's form).
    pub kwargs: Value,
    /// The task instance that waits for it, if one does.
    pub ti: Option<TaskInstance>,
    /// When it fails for waiting too long.
    pub timeout_at: Option<DateTime<Utc>>,
}

/// What a triggerer tells.
#[derive(Debug, Clone, PartialEq)]
pub enum TriggerReport {
    /// A trigger fired. It may fire again unless it belongs to a task.
    Fired {
        /// The trigger.
        id: i64,
        /// `TriggerEvent`, `TaskSuccessEvent`, `TaskFailedEvent` or `TaskSkippedEvent`.
        event_type: String,
        /// The event in serde's form, as it stands under `event` in the resumed task's arguments.
        payload: Value,
        /// XComs that an end-from-trigger event brings.
        xcoms: Option<Map<String, Value>>,
    },
    /// A trigger raised, timed out, or ended without an event. Its task resumes with `__fail__`.
    Failed {
        /// The trigger.
        id: i64,
        /// Traceback or reason.
        error: String,
        /// Whether `timeout_at` had come.
        timed_out: bool,
    },
    /// A trigger's coroutine is over, after any of the above.
    Finished {
        /// The trigger.
        id: i64,
    },
    /// A badly written trigger held up all others for so many seconds.
    LoopBlocked {
        /// How long, in seconds.
        seconds: f64,
    },
    /// The child has ended; its triggers run no more. The last report.
    Exited(Exited),
}

/// A child that runs triggers. Dropping it kills it; triggers' `on_kill` does not run then, as in a handover.
pub struct Triggerer {
    child: Child,
    answers: Arc<dyn Answers>,
}

#[derive(Deserialize)]
struct FiredBody {
    id: i64,
    event_type: String,
    payload: Value,
    #[serde(default)]
    xcoms: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct FailedBody {
    id: i64,
    error: String,
    #[serde(default)]
    timed_out: bool,
}

#[derive(Deserialize)]
struct FinishedBody {
    id: i64,
}

#[derive(Deserialize)]
struct BlockedBody {
    seconds: f64,
}

impl Host {
    /// Starts a child for triggers. With a bundle its folders are importable, for triggers defined there.
    ///
    /// # Errors
    /// As [`Host::spawn_task`].
    pub async fn triggerer(
        &self,
        bundle: Option<(&Path, &str)>,
        env: BTreeMap<String, String>,
        answers: Arc<dyn Answers>,
    ) -> Result<Triggerer, Error> {
        let (path, name) = bundle.unwrap_or((Path::new(""), ""));
        let child = self.spawn::<Value>(Kind::Triggerer, path, name, "", env, None).await?;
        Ok(Triggerer { child, answers })
    }
}

impl Triggerer {
    /// Runs a trigger. An id that runs already is left alone.
    ///
    /// # Errors
    /// [`Error::ChildGone`] where the child has ended.
    pub async fn add(&self, trigger: &Trigger) -> Result<(), Error> {
        #[derive(Serialize)]
        #[serde(tag = "type")]
        enum Command<'a> {
            GustAddTrigger(&'a Trigger),
        }
        self.command(&Command::GustAddTrigger(trigger)).await
    }

    /// Stops a trigger. By a user's act its `on_kill` runs; otherwise it is expected to run elsewhere.
    ///
    /// # Errors
    /// [`Error::ChildGone`] where the child has ended.
    pub async fn cancel(&self, id: i64, by_user: bool) -> Result<(), Error> {
        self.command(&json!({"type": "GustCancelTrigger", "id": id, "by_user": by_user})).await
    }

    /// Kills the child and all triggers in it.
    pub fn kill(&self) {
        self.child.kill(Signal::SIGKILL);
    }

    /// The next report; `None` after [`TriggerReport::Exited`]. Requests of triggers are answered meanwhile, so this
    /// must be polled. It may be dropped between events without losing any.
    pub async fn next(&mut self) -> Option<TriggerReport> {
        loop {
            match self.child.next_event().await? {
                Event::Request(request) => {
                    if let Some(report) = self.serve(request).await {
                        return Some(report);
                    }
                }
                Event::Log(line) => self.answers.log(&line),
                Event::Stdout(bytes) | Event::Stderr(bytes) => {
                    debug!(target: "gust_python_host::triggerer", "{}", String::from_utf8_lossy(&bytes));
                }
                Event::Broken(problem) => {
                    tracing::warn!(%problem, "the triggerer broke the protocol and is killed");
                    self.kill();
                }
                Event::Exited(ended) => return Some(TriggerReport::Exited(ended)),
            }
        }
    }

    async fn command<T: Serialize>(&self, body: &T) -> Result<(), Error> {
        self.child.handle().write(&frame::encode(&(COMMAND, body))?).await
    }

    async fn serve(&self, request: Request) -> Option<TriggerReport> {
        let Request { id, body, .. } = request;
        let handle = self.child.handle();
        let report = match body {
            FromTask::Unknown { kind, raw, .. } if kind.starts_with("Gust") => match report(&kind, raw) {
                Ok(report) => Some(report),
                Err(problem) => {
                    tracing::warn!(%problem, kind, "the triggerer sent a report that cannot be read");
                    None
                }
            },
            other => {
                // One slow answer must not hold up the other triggers.
                let answers = Arc::clone(&self.answers);
                tokio::spawn(async move {
                    let reply = answers.answer(&other).await;
                    drop(handle.reply(id, reply).await);
                });
                return None;
            }
        };
        drop(handle.reply(id, Reply::Empty).await);
        report
    }
}

fn report(kind: &str, raw: Value) -> Result<TriggerReport, serde_json::Error> {
    Ok(match kind {
        "GustTriggerEvent" => {
            let FiredBody { id, event_type, payload, xcoms } = serde_json::from_value(raw)?;
            TriggerReport::Fired { id, event_type, payload, xcoms }
        }
        "GustTriggerFailed" => {
            let FailedBody { id, error, timed_out } = serde_json::from_value(raw)?;
            TriggerReport::Failed { id, error, timed_out }
        }
        "GustTriggerFinished" => {
            let FinishedBody { id } = serde_json::from_value(raw)?;
            TriggerReport::Finished { id }
        }
        _ => {
            let BlockedBody { seconds } = serde_json::from_value(raw)?;
            TriggerReport::LoopBlocked { seconds }
        }
    })
}
