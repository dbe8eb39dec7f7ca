//! What happens next in a run: facts and a clock reading in, decisions out. No I/O, no clock, no randomness, no hash
//! order, so that a daemon, a Lambda and a simulation decide alike.
//!
//! - [`Advance`] takes a run from what changed to what may run next (none → scheduled) and to its end. It asks for the
//!   facts that it needs, in bulk, and nothing else; its cost follows what changed, not the run's size.
//! - [`Admission`] picks which scheduled task instances are queued under pools and limits.
//! - [`run_creation`] and [`start_runs`] make runs and start them.
//! - [`end_of_try`] says what a try's end means; [`clear`] and [`mark`] do what a person asks.
//!
//! Semantics are those of Airflow 3.3.2; each rule names the file that it follows.

mod admit;
mod advance;
pub mod assets;
mod clear;
mod end_of_try;
mod expansion;
mod mark;
mod new_instance;
mod plan;
mod python_time;
mod retry;
mod run_creation;
mod start_runs;
mod trigger_rule;

pub use admit::{
    ActiveCount, Admission, AdmissionPlan, AdmissionSettings, Candidate, CandidateRequest, Refusal,
    RefusalReason,
};
pub use advance::{
    Advance, AdvanceSettings, FactReply, FactRequest, InstanceSelection, Poll, PreviousRunReply,
    PreviousRunRequest,
};
pub use clear::{ClearRelatives, ClearedInstance, ClearedRun, clear_instance, clear_run, tasks_to_clear};
pub use end_of_try::{CallbackKind, EndedTry, TryOutcome, end_of_try, should_retry};
pub use mark::{MarkedInstance, mark_instance, mark_run, run_may_end};
pub use new_instance::new_instance;
pub use plan::{InstanceChange, Plan, RunCallback, RunChange, RunEnd};
pub use retry::next_retry_at;
pub use run_creation::{
    CreatedRun, RunCreation, RunCreationFacts, create_due_run, next_run_of, pinned_bundle_version,
    should_pause, time_restriction,
};
pub use start_runs::{RunningCounts, StartDecision, StartRuns};
pub use trigger_rule::{RuleVerdict, UpstreamCounts, evaluate as evaluate_trigger_rule};
