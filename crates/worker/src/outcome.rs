//! What a process's words and its end come to. Pure.

use gust_python_host::{
    Exit, Exited,
    messages::{AwaitInputTask, DeferTask, FromTask, RescheduleTask, RetryTask, SucceedTask, TaskState},
};
use serde_json::{Map, Value, json};

use crate::lines::Level;

/// The last word of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Terminal {
    /// It ended well.
    Succeed(SucceedTask),
    /// It failed and is tried again.
    Retry(RetryTask),
    /// It waits for a trigger.
    Defer(DeferTask),
    /// It wants to be poked again.
    Reschedule(RescheduleTask),
    /// It waits for a person.
    AwaitInput(AwaitInputTask),
    /// It failed, or was skipped.
    State(TaskState),
}

impl Terminal {
    /// The terminal message in a request, if it is one.
    #[must_use]
    pub fn of(body: &FromTask) -> Option<Self> {
        Some(match body {
            FromTask::SucceedTask(m) => Self::Succeed(m.clone()),
            FromTask::RetryTask(m) => Self::Retry(m.clone()),
            FromTask::DeferTask(m) => Self::Defer(m.clone()),
            FromTask::RescheduleTask(m) => Self::Reschedule(m.clone()),
            FromTask::AwaitInputTask(m) => Self::AwaitInput(m.clone()),
            FromTask::TaskState(m) => Self::State(m.clone()),
            _ => return None,
        })
    }

    /// Whether it stands whatever the process's end: Airflow's supervisor has passed it on by then
    /// (`airflow/sdk/execution_time/supervisor.py: STATES_SENT_DIRECTLY`).
    fn is_final(&self) -> bool {
        !matches!(self, Self::State(_))
    }
}

/// Why the worker ended the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Killed {
    /// The try is no longer ours.
    Revoked,
    /// The metastore was silent for too long.
    Outage,
    /// It ran past its execution timeout and would not end.
    ExecutionTimeout,
    /// It reported its end and would not end.
    Overtime,
    /// The worker shuts down; the try goes back into the queue.
    Shutdown,
    /// The function that it runs in ends.
    Deadline,
    /// It broke the protocol.
    Broken,
    /// Its writes were lost.
    WritesLost,
}

/// What a try comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// What the task said.
    Said(Terminal),
    /// It ended without a word that counts: why, for people.
    Died(String),
    /// Nothing may be written: the try is somebody else's.
    Abandoned,
    /// It goes back into the queue as it came.
    Released,
}

/// Decides what a try comes to.
#[must_use]
pub fn verdict(said: Option<Terminal>, exited: &Exited, killed: Option<Killed>) -> Verdict {
    match killed {
        Some(Killed::Revoked) => return Verdict::Abandoned,
        Some(Killed::WritesLost) => return Verdict::Died("its writes to the metastore were lost".to_owned()),
        _ => {}
    }
    match (said, exited.exit) {
        (Some(said), _) if said.is_final() => Verdict::Said(said),
        (Some(said), Exit::Code(0)) => Verdict::Said(said),
        _ if killed == Some(Killed::Shutdown) => Verdict::Released,
        (_, exit) => Verdict::Died(cause(exit, killed)),
    }
}

fn cause(exit: Exit, killed: Option<Killed>) -> String {
    match killed {
        Some(Killed::Outage) => "the metastore was silent for too long; the process was ended".to_owned(),
        Some(Killed::ExecutionTimeout) => "it ran past its execution timeout and was killed".to_owned(),
        Some(Killed::Overtime) => "it went on for too long after it had reported its end".to_owned(),
        Some(Killed::Deadline) => "the time limit of the function that ran it was reached".to_owned(),
        Some(Killed::Broken) => "it broke the supervisor protocol".to_owned(),
        _ => match exit {
            Exit::Code(0) => "its process ended without reporting a state".to_owned(),
            Exit::Code(code) => format!("its process ended with exit code {code}"),
            Exit::Signal(9) => "its process was killed by SIGKILL, likely out of memory".to_owned(),
            Exit::Signal(signal) => format!("its process was ended by {}", signal_name(signal)),
            Exit::Lost => "the Python zygote that it was forked from died".to_owned(),
        },
    }
}

/// What the task's own log says of the end, if it needs a word
/// (`airflow/sdk/execution_time/supervisor.py: _check_subprocess_exit`).
#[must_use]
pub fn remark(exited: &Exited, killed: Option<Killed>) -> Option<(Level, String, Map<String, Value>)> {
    let more = |value: Value| value.as_object().cloned().unwrap_or_default();
    match exited.exit {
        Exit::Code(0) => None,
        Exit::Code(code) => {
            Some((Level::Warning, "Process exited abnormally".to_owned(), more(json!({"exit_code": code}))))
        }
        Exit::Signal(signal) => {
            let (level, text) = match signal {
                _ if killed.is_some() => (Level::Error, "Process terminated by the supervisor."),
                11 => (
                    Level::Critical,
                    "Process terminated by SIGSEGV (segmentation fault): a native library read or wrote memory \
                     that is not its own. Setting PYTHONFAULTHANDLER=true shows where.",
                ),
                9 => (Level::Critical, "Process terminated by signal. Likely out of memory error (OOM)."),
                _ => (Level::Error, "Process terminated by signal."),
            };
            let more = more(json!({
                "signal": signal,
                "signal_name": signal_name(signal),
                "max_rss_kb": exited.usage.max_rss_kb,
            }));
            Some((level, text.to_owned(), more))
        }
        Exit::Lost => Some((
            Level::Critical,
            "The Python zygote that this process was forked from died, and the process with it.".to_owned(),
            Map::new(),
        )),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use gust_python_host::{Usage, messages::EndState};
    use rstest::rstest;

    use super::*;

    fn succeed() -> Terminal {
        Terminal::Succeed(SucceedTask {
            end_date: "2026-01-01T00:00:00Z".parse().unwrap(),
            task_outlets: None,
            outlet_events: None,
            rendered_map_index: None,
        })
    }

    fn failed() -> Terminal {
        Terminal::State(TaskState { state: EndState::Failed, end_date: None, rendered_map_index: None })
    }

    fn kind(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Said(_) => "said",
            Verdict::Died(_) => "died",
            Verdict::Abandoned => "abandoned",
            Verdict::Released => "released",
        }
    }

    #[rstest]
    #[case(Some(succeed()), Exit::Code(0), None, "said")]
    #[case(Some(succeed()), Exit::Code(1), None, "said")]
    #[case(Some(succeed()), Exit::Signal(9), Some(Killed::Overtime), "said")]
    #[case(Some(succeed()), Exit::Signal(15), Some(Killed::Revoked), "abandoned")]
    #[case(Some(succeed()), Exit::Code(0), Some(Killed::WritesLost), "died")]
    #[case(Some(succeed()), Exit::Signal(15), Some(Killed::Shutdown), "said")]
    #[case(Some(failed()), Exit::Code(0), None, "said")]
    #[case(Some(failed()), Exit::Code(3), None, "died")]
    #[case(None, Exit::Code(0), None, "died")]
    #[case(None, Exit::Code(3), None, "died")]
    #[case(None, Exit::Signal(11), None, "died")]
    #[case(None, Exit::Lost, None, "died")]
    #[case(None, Exit::Signal(15), Some(Killed::Shutdown), "released")]
    #[case(None, Exit::Signal(9), Some(Killed::ExecutionTimeout), "died")]
    fn a_last_word_stands_unless_the_end_belies_it(
        #[case] said: Option<Terminal>,
        #[case] exit: Exit,
        #[case] killed: Option<Killed>,
        #[case] expected: &str,
    ) {
        let exited = Exited { exit, usage: Usage::default() };
        assert_eq!(kind(&verdict(said, &exited, killed)), expected);
    }
}
