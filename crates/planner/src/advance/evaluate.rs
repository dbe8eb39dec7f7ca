//! Whether the undecided instances of a task may run, by all that Airflow's scheduler checks
//! (`airflow/serialization/definitions/baseoperator.py: DEFAULT_OPERATOR_DEPS`).

use std::collections::BTreeSet;

use chrono::TimeDelta;

use gust_model::{
    MapIndex, TaskInstanceState,
    dag::{GroupIndex, TaskIndex, TriggerRule},
    record::{Timestamp, UpstreamTally},
};

use super::known::{Fact, View};
use crate::{
    expansion,
    trigger_rule::{self, RuleVerdict},
};

/// Which instances of a task are to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    /// All that are undecided, and all known ones whose time has come.
    All,
    /// Those at these indexes.
    Indexes(BTreeSet<MapIndex>),
}

impl Which {
    pub fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::Indexes(own), Self::Indexes(more)) => own.extend(more),
            (own, other) => {
                if other == Self::All {
                    *own = Self::All;
                }
            }
        }
    }
}

/// What is decided about an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It comes to this state.
    Becomes(TaskInstanceState),
    /// It may run.
    Runs,
    /// It becomes so many instances.
    Expands(u32),
    /// Its task has this many instances now, other than when it was expanded; it is looked at again after that.
    Resizes(u32),
    /// It would be skipped, but not yet: something before it is still under way and may fail.
    Holds,
}

/// What in a pass makes parts of the evaluation worth doing that otherwise cannot have changed.
pub(super) struct Occasion<'a> {
    pub now: Timestamp,
    /// Everything may have changed.
    pub is_full: bool,
    /// Tasks of which an instance ended, or was reset, in this pass.
    pub changed: &'a BTreeSet<TaskIndex>,
    /// How long a skip waits for upstreams that may still fail.
    pub skip_grace: TimeDelta,
}

/// Evaluates instances of a task; those that stay as they are, are left out.
pub(super) fn evaluate(
    view: &View<'_>,
    occasion: &Occasion<'_>,
    task: TaskIndex,
    which: &Which,
) -> Fact<Vec<(MapIndex, Outcome)>> {
    let links = view.dag.links(task);
    let has_undecided = view.tally(task)?.own.contains_key(&TaskInstanceState::None);
    let due: BTreeSet<MapIndex> = view
        .ledger
        .rows_of(task)
        .filter(|(index, row)| selects(which, *index) && is_due(row.now.state, row.now.due_at, occasion.now))
        .map(|(index, _)| index)
        .collect();
    if !has_undecided && due.is_empty() {
        return Ok(Vec::new());
    }
    let side = SideDeps {
        // What told it to skip, or fails its mapping, was seen when that happened.
        skip: is_occasion(
            occasion,
            links.upstream.iter().filter(|up| view.dag.task(**up).can_skip_downstream),
        ),
        mapping: is_occasion(occasion, links.mapped_dependencies.iter()),
    };
    if due.is_empty() && !side.skip && !side.mapping && links.mapped_groups.is_empty() {
        // All instances see the same: one look at what was added up tells whether any can be decided. Only the verdict
        // that an instance is one too many depends on the index, and the largest index shows it.
        let looks_alike = rule_verdict(view, task, MapIndex::UNMAPPED)?;
        let looks_mapped = rule_verdict(view, task, MapIndex(i32::MAX))?;
        if looks_alike == RuleVerdict::Wait && looks_mapped == RuleVerdict::Wait {
            return Ok(Vec::new());
        }
    }
    let mut indexes = due;
    match which {
        Which::All => {
            if has_undecided {
                view.undecided_rows(task)?;
            }
            let undecided =
                view.ledger.rows_of(task).filter(|(_, row)| row.now.state == TaskInstanceState::None);
            indexes.extend(undecided.map(|(index, _)| index));
        }
        Which::Indexes(asked) => {
            let states: Vec<_> = asked.iter().map(|index| (*index, view.state_at(task, *index))).collect();
            for (index, state) in states {
                if state? == Some(TaskInstanceState::None) {
                    indexes.insert(index);
                }
            }
        }
    }
    // All are evaluated before the first missing fact ends it, so that one round of questions asks for all.
    let outcomes: Vec<_> = indexes
        .into_iter()
        .map(|index| evaluate_instance(view, occasion, task, index, &side).map(|it| (index, it)))
        .collect();
    let mut decided = Vec::new();
    for outcome in outcomes {
        if let (index, Some(outcome)) = outcome? {
            decided.push((index, outcome));
        }
    }
    Ok(decided)
}

/// Which dependencies beside the trigger rule have to be looked at even if the rule says to wait.
struct SideDeps {
    skip: bool,
    mapping: bool,
}

fn is_occasion<'t>(occasion: &Occasion<'_>, mut tasks: impl Iterator<Item = &'t TaskIndex>) -> bool {
    tasks.any(|task| occasion.is_full || occasion.changed.contains(task))
}

fn selects(which: &Which, index: MapIndex) -> bool {
    match which {
        Which::All => true,
        Which::Indexes(indexes) => indexes.contains(&index),
    }
}

/// Whether a resting instance's time has come.
pub(super) fn is_due(state: TaskInstanceState, due_at: Option<Timestamp>, now: Timestamp) -> bool {
    matches!(state, TaskInstanceState::UpForRetry | TaskInstanceState::UpForReschedule)
        && due_at.is_none_or(|due| due <= now)
}

fn evaluate_instance(
    view: &View<'_>,
    occasion: &Occasion<'_>,
    task: TaskIndex,
    index: MapIndex,
    side: &SideDeps,
) -> Fact<Option<Outcome>> {
    let verdict = rule_verdict(view, task, index)?;
    let is_met = verdict == RuleVerdict::Met;
    let mut becomes = match verdict {
        RuleVerdict::Becomes(state) => Some(state),
        RuleVerdict::Met | RuleVerdict::Wait => None,
    };
    let mut is_blocked = !is_met;
    // A skip that was decided earlier outweighs what the trigger rule says, as it did when it was decided.
    let is_told = (is_met || side.skip || becomes.is_some()) && is_told_to_skip(view, task, index)?;
    if is_told {
        becomes = Some(TaskInstanceState::Skipped);
        is_blocked = true;
    }
    if (is_met || side.mapping || becomes.is_some())
        && let Mapping::Failed(state) = mapping(view, task)?
    {
        is_blocked = true;
        if becomes != Some(TaskInstanceState::UpstreamFailed) {
            becomes = state.or(becomes);
        }
    }
    if let Some(state) = becomes {
        if verdict == RuleVerdict::Becomes(TaskInstanceState::Skipped) && may_still_fail(view, task)? {
            let held_until = view.ledger.row(task, index).and_then(|row| row.now.due_at);
            match held_until {
                _ if is_told => {}
                None => return Ok(Some(Outcome::Holds)),
                Some(until) if until > occasion.now => return Ok(None),
                // The grace is for upstreams that run; one that waits for a worker has had none of it yet.
                Some(_) if has_just_begun(view, occasion, task)? => return Ok(Some(Outcome::Holds)),
                Some(_) => {}
            }
        }
        return Ok(Some(Outcome::Becomes(state)));
    }
    if is_blocked || !view.past_allows(task)? {
        return Ok(None);
    }
    if !view.dag.task(task).needs_expansion {
        return Ok(Some(Outcome::Runs));
    }
    let count = view.task_count(task)?.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    Ok(Some(match (index.is_mapped(), count) {
        // "Expansion of last resort": a value that it is mapped over never came.
        (false, None) => Outcome::Becomes(TaskInstanceState::UpstreamFailed),
        (false, Some(0)) => Outcome::Becomes(TaskInstanceState::Skipped),
        (false, Some(count)) => Outcome::Expands(count),
        (true, None) => Outcome::Runs,
        (true, Some(count)) if view.tally(task)?.expanded_length == Some(count) => Outcome::Runs,
        (true, Some(count)) => Outcome::Resizes(count),
    }))
}

/// Whether a task that asks for all upstreams' success and is to be skipped could still come to fail with one of them
/// that is under way. Which of the two it is depends on what is seen first. Airflow sees ends in passes of its
/// scheduler, about a second apart, and one step of a chain of skips in each; here such chains take no time, so without
/// a little patience a skip would overtake failures that Airflow sees together with its cause.
fn may_still_fail(view: &View<'_>, task: TaskIndex) -> Fact<bool> {
    if view.dag.task(task).trigger_rule != TriggerRule::AllSuccess {
        return Ok(false);
    }
    let mut missing = None;
    let mut is_under_way = false;
    for &upstream in &view.dag.links(task).upstream {
        match view.tally(upstream) {
            Ok(tally) => is_under_way |= tally.own.keys().any(|state| state.is_under_way()),
            Err(error) => missing = Some(error),
        }
    }
    missing.map_or(Ok(is_under_way), Err)
}

/// Whether a direct upstream waits for a worker still, or began to run within the grace. How busy workers are must not
/// decide what a task comes to.
fn has_just_begun(view: &View<'_>, occasion: &Occasion<'_>, task: TaskIndex) -> Fact<bool> {
    let begun_before = occasion.now - occasion.skip_grace;
    let mut missing = None;
    let mut found = false;
    for &upstream in &view.dag.links(task).upstream {
        if !view.tally(upstream)?.own.keys().any(|state| state.is_under_way()) {
            continue;
        }
        if let Err(error) = view.rows(upstream) {
            missing = Some(error);
            continue;
        }
        found |= view.ledger.rows_of(upstream).any(|(_, row)| match row.now.state {
            TaskInstanceState::Scheduled | TaskInstanceState::Queued => true,
            TaskInstanceState::Running => row.now.start_date.is_none_or(|start| start > begun_before),
            _ => false,
        });
    }
    missing.map_or(Ok(found), Err)
}

/// What setups and the trigger rule say (`airflow/ti_deps/deps/trigger_rule_dep.py`).
pub(super) fn rule_verdict(view: &View<'_>, task: TaskIndex, index: MapIndex) -> Fact<RuleVerdict> {
    let definition = view.dag.task(task);
    let links = view.dag.links(task);
    if links.upstream.is_empty() || definition.trigger_rule == TriggerRule::Always {
        return Ok(RuleVerdict::Met);
    }
    let mut setups_wait = false;
    if !links.indirect_setups.is_empty() {
        match setup_verdict(view, task, index)? {
            RuleVerdict::Becomes(state) => return Ok(RuleVerdict::Becomes(state)),
            RuleVerdict::Wait => setups_wait = true,
            RuleVerdict::Met => {}
        }
    }
    let counts = direct_counts(view, task, index)?;
    match trigger_rule::evaluate(definition.trigger_rule, &counts, index) {
        RuleVerdict::Met if setups_wait => Ok(RuleVerdict::Wait),
        RuleVerdict::Met if definition.is_teardown && !is_scope_done(view, task, index)? => {
            Ok(RuleVerdict::Wait)
        }
        verdict => Ok(verdict),
    }
}

/// Setups that are not directly before a task: all must succeed; one that does not decides at once.
fn setup_verdict(view: &View<'_>, task: TaskIndex, index: MapIndex) -> Fact<RuleVerdict> {
    let setups = &view.dag.links(task).indirect_setups;
    let counts = counts_of_all(view, task, index, setups)?;
    let needs_counting = setups.iter().any(|setup| view.dag.task(*setup).needs_expansion);
    let total = if needs_counting { counts.total } else { u32::try_from(setups.len()).unwrap_or(u32::MAX) };
    let removed = if index.is_mapped() { counts.removed } else { 0 };
    if counts.upstream_failed > 0 || counts.failed > 0 {
        Ok(RuleVerdict::Becomes(TaskInstanceState::UpstreamFailed))
    } else if counts.skipped > 0 {
        Ok(RuleVerdict::Becomes(TaskInstanceState::Skipped))
    } else if counts.removed > 0
        && counts.success > 0
        && u32::try_from(index.0).is_ok_and(|index| index >= counts.success)
    {
        Ok(RuleVerdict::Becomes(TaskInstanceState::Removed))
    } else if counts.success + removed < total {
        Ok(RuleVerdict::Wait)
    } else {
        Ok(RuleVerdict::Met)
    }
}

/// Whether everything between a teardown and its setups is over.
fn is_scope_done(view: &View<'_>, task: TaskIndex, index: MapIndex) -> Fact<bool> {
    let scope = &view.dag.links(task).teardown_scope;
    if scope.is_empty() {
        return Ok(true);
    }
    let counts = counts_of_all(view, task, index, scope)?;
    let needs_counting = scope.iter().any(|inner| view.dag.task(*inner).needs_expansion);
    let expected = if needs_counting { counts.total } else { u32::try_from(scope.len()).unwrap_or(u32::MAX) };
    Ok(counts.done() >= expected)
}

fn counts_of_all(
    view: &View<'_>,
    task: TaskIndex,
    index: MapIndex,
    others: &[TaskIndex],
) -> Fact<UpstreamTally> {
    let mut counts = UpstreamTally::default();
    let mut missing = None;
    for &other in others {
        match relevant_counts(view, task, index, other, shared_group(view, task, other)) {
            Ok(more) => add(&mut counts, &more),
            Err(error) => missing = Some(error),
        }
    }
    missing.map_or(Ok(counts), Err)
}

fn shared_group(view: &View<'_>, task: TaskIndex, other: TaskIndex) -> Option<GroupIndex> {
    let around_other = &view.dag.links(other).mapped_groups;
    view.dag.links(task).mapped_groups.iter().find(|group| around_other.contains(group)).copied()
}

fn direct_counts(view: &View<'_>, task: TaskIndex, index: MapIndex) -> Fact<UpstreamTally> {
    let links = view.dag.links(task);
    let mut counts = view.tally(task)?.upstream;
    let mut missing = None;
    for &(upstream, group) in &links.index_upstream {
        match relevant_counts(view, task, index, upstream, Some(group)) {
            Ok(more) => add(&mut counts, &more),
            Err(error) => missing = Some(error),
        }
    }
    if let Some(error) = missing {
        return Err(error);
    }
    if !links.has_expanding_upstream {
        // A task without an instance in this run (it begins later) is waited for all the same.
        let setups = links.upstream.iter().filter(|upstream| view.dag.task(**upstream).is_setup).count();
        counts.total = u32::try_from(links.upstream.len()).unwrap_or(u32::MAX);
        counts.setup_total = u32::try_from(setups).unwrap_or(u32::MAX);
    }
    Ok(counts)
}

/// The instances of `other` that matter to a task's instance: all, unless they share a mapped group.
fn relevant_counts(
    view: &View<'_>,
    task: TaskIndex,
    index: MapIndex,
    other: TaskIndex,
    shared: Option<GroupIndex>,
) -> Fact<UpstreamTally> {
    let Some(group) = shared else { return view.counts_of(other) };
    let definition = view.dag.task(task);
    // Before its group is expanded, a rule that a part of the upstreams can satisfy looks at all of them, so that it
    // is not satisfied, or given up, for want of instances.
    let is_fast = matches!(
        definition.trigger_rule,
        TriggerRule::OneSuccess
            | TriggerRule::OneFailed
            | TriggerRule::OneDone
            | TriggerRule::NoneFailedMinOneSuccess
    );
    if !index.is_mapped()
        && is_fast
        && view.dag.links(task).expansion_dependencies.binary_search(&other).is_err()
    {
        return view.counts_of(other);
    }
    let (Some(task_count), Some(group_count)) = (view.task_count(task)?, view.group_count(group)?) else {
        return view.counts_of(other);
    };
    if task_count == 0 {
        return view.counts_of(other);
    }
    let relevant = expansion::relevant_indexes(view.dag, other, group, index.0, task_count, group_count);
    let is_setup = view.dag.task(other).is_setup;
    let mut indexes: BTreeSet<i64> = relevant.collect();
    indexes.insert(i64::from(MapIndex::UNMAPPED.0));
    let mut counts = UpstreamTally::default();
    let mut missing = None;
    for at in indexes.into_iter().filter_map(|at| i32::try_from(at).ok()).filter(|at| *at >= -1) {
        match view.state_at(other, MapIndex(at)) {
            Ok(Some(state)) => super::ledger::weigh(&mut counts, state, is_setup, |count| *count += 1),
            Ok(None) => {}
            Err(error) => missing = Some(error),
        }
    }
    missing.map_or(Ok(counts), Err)
}

fn add(counts: &mut UpstreamTally, more: &UpstreamTally) {
    counts.total += more.total;
    counts.success += more.success;
    counts.skipped += more.skipped;
    counts.failed += more.failed;
    counts.upstream_failed += more.upstream_failed;
    counts.removed += more.removed;
    counts.setup_total += more.setup_total;
    counts.success_setup += more.success_setup;
    counts.skipped_setup += more.skipped_setup;
}

/// Whether a direct upstream that is over told this task to be skipped; that holds after a clear as well
/// (`airflow/ti_deps/deps/not_previously_skipped_dep.py`).
fn is_told_to_skip(view: &View<'_>, task: TaskIndex, index: MapIndex) -> Fact<bool> {
    for &parent in &view.dag.links(task).upstream {
        let definition = view.dag.task(parent);
        if !definition.can_skip_downstream || !view.tally(parent)?.own.keys().any(|state| state.is_finished())
        {
            continue;
        }
        let at = if definition.is_mapped() { index } else { MapIndex::UNMAPPED };
        if view.is_told_to_skip(parent, at, task)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How the tasks stand whose values decide how often a task is there.
enum Mapping {
    /// None of them failed so far.
    Unhurt,
    /// One is over and did not succeed: the task is not to run, and comes to this state, if any.
    Failed(Option<TaskInstanceState>),
}

/// Looks at them (`airflow/ti_deps/deps/mapped_task_upstream_dep.py`).
fn mapping(view: &View<'_>, task: TaskIndex) -> Fact<Mapping> {
    let mut finished = BTreeSet::new();
    for &dependency in &view.dag.links(task).mapped_dependencies {
        let tally = view.tally(dependency)?;
        // One that was expanded did not fail and was not skipped as a whole, which is all that matters here.
        if tally.expanded_length.is_none() {
            finished.extend(tally.own.keys().copied().filter(|state| state.is_finished()));
        }
    }
    if finished.iter().all(|state| *state == TaskInstanceState::Success) {
        return Ok(Mapping::Unhurt);
    }
    let has = |state| finished.contains(&state);
    Ok(Mapping::Failed(if has(TaskInstanceState::Failed) || has(TaskInstanceState::UpstreamFailed) {
        Some(TaskInstanceState::UpstreamFailed)
    } else {
        has(TaskInstanceState::Skipped).then_some(TaskInstanceState::Skipped)
    }))
}
