//! Trigger rules: what the direct upstreams' states mean for a task instance
//! (`airflow/ti_deps/deps/trigger_rule_dep.py: _evaluate_direct_relatives`).

use gust_model::{MapIndex, TaskInstanceState, dag::TriggerRule, record::UpstreamTally};

/// What the relevant upstream instances of a task instance have come to.
///
/// `total` may be less than what is done: instances are counted where a mapped task is among the upstreams, and tasks
/// otherwise.
pub type UpstreamCounts = UpstreamTally;

/// What a trigger rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleVerdict {
    /// The task instance may run.
    Met,
    /// It may not run yet.
    Wait,
    /// It will not run: it comes to this state at once.
    Becomes(TaskInstanceState),
}

/// Evaluates a rule. `counts` are those of the direct upstreams that matter to this instance.
///
/// Both halves of Airflow's evaluation are here: which state the instance takes because it can never run, and, if none,
/// whether it may run. An instance that takes a state never runs, even where its rule would be met.
#[must_use]
pub fn evaluate(rule: TriggerRule, counts: &UpstreamCounts, map_index: MapIndex) -> RuleVerdict {
    match final_state(rule, counts, map_index) {
        Some(state) => RuleVerdict::Becomes(state),
        None if is_met(rule, counts) => RuleVerdict::Met,
        None => RuleVerdict::Wait,
    }
}

fn final_state(rule: TriggerRule, counts: &UpstreamCounts, map_index: MapIndex) -> Option<TaskInstanceState> {
    use TaskInstanceState::{Removed, Skipped, UpstreamFailed};
    let any_failed = counts.failed > 0 || counts.upstream_failed > 0;
    let is_done = counts.done() >= counts.total;
    match rule {
        TriggerRule::AllSuccess => {
            if any_failed {
                Some(UpstreamFailed)
            } else if counts.skipped > 0 {
                Some(Skipped)
            } else if counts.removed > 0
                && counts.success > 0
                && u32::try_from(map_index.0).is_ok_and(|index| index >= counts.success)
            {
                Some(Removed)
            } else {
                None
            }
        }
        TriggerRule::AllFailed => (counts.success > 0 || counts.skipped > 0).then_some(Skipped),
        TriggerRule::OneSuccess => {
            if is_done && counts.done() == counts.skipped {
                Some(Skipped)
            } else if is_done && counts.success == 0 {
                Some(UpstreamFailed)
            } else {
                None
            }
        }
        TriggerRule::OneFailed => (is_done && !any_failed).then_some(Skipped),
        TriggerRule::OneDone => (is_done && counts.failed == 0 && counts.success == 0).then_some(Skipped),
        TriggerRule::NoneFailed => any_failed.then_some(UpstreamFailed),
        TriggerRule::NoneFailedMinOneSuccess => {
            if any_failed {
                Some(UpstreamFailed)
            } else if counts.skipped == counts.total {
                Some(Skipped)
            } else if is_done && counts.success == 0 {
                Some(UpstreamFailed)
            } else {
                None
            }
        }
        TriggerRule::NoneSkipped => (counts.skipped > 0).then_some(Skipped),
        TriggerRule::AllSkipped => (counts.success > 0 || any_failed).then_some(Skipped),
        TriggerRule::AllDoneMinOneSuccess => {
            let ended = counts.success + counts.failed + counts.upstream_failed + counts.removed;
            if counts.skipped > 0 {
                Some(Skipped)
            } else if ended >= counts.total && counts.success == 0 {
                Some(UpstreamFailed)
            } else {
                None
            }
        }
        TriggerRule::AllDoneSetupSuccess => {
            if is_done && counts.setup_total > 0 && counts.skipped_setup >= counts.setup_total {
                Some(Skipped)
            } else if is_done && counts.setup_total > 0 && counts.success_setup == 0 {
                Some(UpstreamFailed)
            } else {
                None
            }
        }
        TriggerRule::AllDone | TriggerRule::Always => None,
    }
}

fn is_met(rule: TriggerRule, counts: &UpstreamCounts) -> bool {
    let is_done = counts.done() >= counts.total;
    match rule {
        TriggerRule::Always => true,
        TriggerRule::AllDone => is_done,
        TriggerRule::OneSuccess => counts.success > 0,
        TriggerRule::OneFailed => counts.failed > 0 || counts.upstream_failed > 0,
        TriggerRule::OneDone => counts.success + counts.failed > 0,
        TriggerRule::AllSuccess => counts.success + counts.removed >= counts.total,
        TriggerRule::AllFailed => counts.failed + counts.upstream_failed + counts.removed >= counts.total,
        TriggerRule::NoneFailed => counts.success + counts.skipped + counts.removed >= counts.total,
        TriggerRule::NoneFailedMinOneSuccess => {
            counts.success + counts.skipped + counts.removed >= counts.total && counts.success > 0
        }
        TriggerRule::NoneSkipped => is_done && counts.skipped == 0,
        TriggerRule::AllSkipped => counts.skipped >= counts.total,
        TriggerRule::AllDoneMinOneSuccess => {
            let ended = counts.success + counts.failed + counts.upstream_failed;
            counts.skipped == 0 && ended + counts.removed >= counts.total && counts.success > 0
        }
        TriggerRule::AllDoneSetupSuccess => is_done && (counts.setup_total == 0 || counts.success_setup > 0),
    }
}
