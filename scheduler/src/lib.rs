//! The scheduler: the DAG processor that takes DAG files in, the task scheduler that makes runs and advances them, the
//! executor that admits task instances and sends them, and the reaper that ends what nobody holds any more.
//!
//! Everything here stands on ports. A pass is idempotent and keeps nothing from one call to the next but caches, so
//! that it runs as a loop in a daemon or once an event in a Lambda, several at a time (DESIGN §1, 4).

pub mod dag_processor;
mod error;
mod executor;
mod graphs;
mod pass;
mod reaper;
mod task_scheduler;

pub use error::SchedulerError;
pub use executor::{ExecutorSettings, Target};
pub use pass::{Pass, Scheduler, SchedulerSettings};
