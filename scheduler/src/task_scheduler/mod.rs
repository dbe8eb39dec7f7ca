//! The task scheduler: makes runs that are due, starts queued ones, and advances running ones (none → scheduled, run
//! ends). What to do is the planner's word; this room reads the facts, holds the locks and writes.

mod advance;
mod apply;
mod create;
mod facts;
mod start;

pub(crate) use advance::{Advanced, advance_run, put_last, runs_to_advance};
pub(crate) use create::{create_asset_runs, create_due_runs};
pub(crate) use start::start_queued_runs;
