//! When a DAG runs next.
//!
//! Airflow's built-in timetables as pure functions: [`Timetable::from_serialized`] reads one from a serialized DAG, and
//! [`Timetable::next_run`] answers from the last run, the DAG's bounds and a clock reading what Airflow 3.3.2 would
//! answer. Nothing here reads a clock, draws a random number or depends on hash order (`clippy.toml` forbids it), so
//! the scheduler gets the same answer wherever it asks.
//!
//! Cron expressions follow croniter's dialect and its quirks, because that is what Airflow evaluates: see [`cron`].
//! A user's own timetable class becomes [`Timetable::Custom`], which only Python can answer.

pub mod assets;
pub mod cron;
mod decode;
mod delta;
mod error;
mod interval;
mod python;
mod run;
mod simple;
mod strftime;
mod strptime;
mod ticks;
mod timetable;
mod trigger;
mod zone;

pub use assets::{Asset, AssetExpression, AssetLeaf};
pub use cron::{CronExpression, CronSchedule};
pub use delta::{Delta, RelativeDelta};
pub use error::TimetableError;
pub use interval::{CronDataInterval, DeltaDataInterval};
pub use run::{DataInterval, LastRun, NextRun, TimeRestriction};
pub use simple::Events;
pub use timetable::{AssetOrTime, CustomTimetable, PartitionedAsset, Timetable, generate_run_id};
pub use trigger::{CronPartition, CronTrigger, DeltaTrigger, MultipleCronTrigger, RunImmediately};
pub use zone::Zone;
