//! Runs one work item under its lease: the supervisor of Airflow's Task SDK.
//!
//! A [`Worker`] receives hints, claims the rows that they name, starts a Python child for each, answers what it asks,
//! ships its log, renews its lease, and ends it with one fenced transaction. Everything that it touches stands behind
//! a port ([`Services`]), so that a simulation can run it.

mod callbacks;
mod claim;
mod config;
mod dags;
mod error;
mod finish;
mod lines;
mod log;
mod outcome;
mod outlets;
mod parse_answers;
mod persist;
mod redact;
mod requests;
pub mod resume;
mod services;
mod supervise;
mod trigger_end;
mod trigger_log;
mod trigger_process;
mod triggerer;
mod worker;

pub use config::WorkerConfig;
pub use error::WorkerError;
pub use parse_answers::ParseAnswers;
pub use redact::{Redactor, Secrets};
pub use services::{Process, Processes, Services};
pub use trigger_process::{TriggerProcess, TriggerProcesses};
pub use triggerer::{Triggerer, TriggererConfig};
pub use worker::{Limits, Worker};
