//! The Python child and its protocol: zygotes, frames, supervision.
//!
//! A [`Host`] owns one base zygote, which has imported Airflow's task SDK, and below it one zygote per DAG file, which
//! has imported that file. Tasks, callbacks, parsers and triggerers are forked from them. Each talks the SDK's
//! supervisor protocol ([`messages`]) over a socket of its own; the owner answers its requests and hears of its end.
//! What an end *means* for a task instance is the worker's business.
//!
//! No child outlives its owner: when the control socket ends, each zygote kills all that it has started.

mod answers;
mod callback;
mod child;
mod control;
mod drain;
mod embedded;
pub mod env;
mod error;
pub mod frame;
mod host;
pub mod messages;
mod parse;
mod questions;
#[cfg(feature = "test-support")]
pub mod testing;
mod trigger;
mod value;
mod zygote;

pub use answers::{Answers, NoAnswers};
pub use callback::{CallbackRequest, SpawnCallbacks};
pub use child::{Child, ChildHandle, Event, Exit, Exited, Request, Signal, Usage};
pub use embedded::REQUIREMENTS_LOCK;
pub use env::{Environment, EnvironmentConfig, Progress};
pub use error::Error;
pub use host::{Host, HostConfig, SpawnTask, inherited_env};
pub use parse::{Parse, ParseEvent, ParseRequest, ParsedDag, ParsedFile};
pub use questions::{Answer, Interval, NextRun, Question, RunInfo};
pub use trigger::{Trigger, TriggerReport, Triggerer};
