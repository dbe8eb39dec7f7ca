//! Runs that are due by a clock (`airflow/jobs/scheduler_job_runner.py: _create_dag_runs`,
//! `airflow/models/dag.py: calculate_dagrun_date_fields`).

use gust_model::{
    BundleVersion, DagRunId, DagRunState, DagRunType, RunId, TriggeredBy,
    dag::Dag,
    record::{DagRecord, DagRun, NextRun, Timestamp},
};
use gust_timetable::{LastRun, TimeRestriction, Timetable, TimetableError};
use serde_json::{Map, Value};

/// What the decision whether to make a DAG's due run rests on, beside the DAG itself.
#[derive(Debug, Clone, Copy)]
pub struct RunCreationFacts<'a> {
    /// The DAG's row, locked.
    pub record: &'a DagRecord,
    /// Its newest graph.
    pub dag: &'a Dag,
    /// Its timetable.
    pub timetable: &'a Timetable,
    /// How many of its runs are queued or running, backfills left out.
    pub active_runs: u32,
    /// Whether it has a run with the logical date of the due run already.
    pub exists_already: bool,
    /// Eight random letters or digits, for the run id of a partition.
    pub random: &'a str,
}

/// A run to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct CreatedRun {
    /// Its id.
    pub run_id: RunId,
    /// Why it exists.
    pub run_type: DagRunType,
    /// Through which door it came.
    pub triggered_by: TriggeredBy,
    /// Its state: queued.
    pub state: DagRunState,
    /// The date it stands for.
    pub logical_date: Option<Timestamp>,
    /// Start of its data interval.
    pub data_interval_start: Option<Timestamp>,
    /// End of its data interval.
    pub data_interval_end: Option<Timestamp>,
    /// It does not start before this.
    pub run_after: Timestamp,
    /// Its partition.
    pub partition_key: Option<String>,
}

impl CreatedRun {
    /// Its row at its beginning, pinned to the DAG's newest graph and code: named `id`, made at `now`, without
    /// parameters, a note or a user (`airflow/serialization/definitions/dag.py: _create_orm_dagrun`).
    #[must_use]
    pub fn into_row(self, id: DagRunId, dag: &Dag, record: &DagRecord, now: Timestamp) -> DagRun {
        DagRun {
            id,
            dag_id: record.dag_id.clone(),
            run_id: self.run_id,
            run_type: self.run_type,
            state: self.state,
            logical_date: self.logical_date,
            data_interval_start: self.data_interval_start,
            data_interval_end: self.data_interval_end,
            run_after: self.run_after,
            queued_at: now,
            start_date: None,
            end_date: None,
            conf: Value::Object(Map::new()),
            triggered_by: Some(self.triggered_by),
            triggering_user: None,
            dag_version_id: record.current_version_id,
            bundle_version: pinned_bundle_version(dag, record),
            clear_number: 0,
            backfill_id: None,
            partition_key: self.partition_key,
            note: None,
            unfinished_count: 0,
            under_way_count: 0,
            is_expanded: false,
            is_dirty: true,
            due_at: None,
            last_scheduling_decision: None,
            change_seq: 0,
        }
    }
}

/// The code that a DAG's runs are pinned to; none for a DAG that wants the newest at every try.
#[must_use]
pub fn pinned_bundle_version(dag: &Dag, record: &DagRecord) -> Option<BundleVersion> {
    if dag.disable_bundle_versioning { None } else { record.bundle_version.clone() }
}

/// What is to be done about a DAG's due run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunCreation {
    /// Nothing is due, or the DAG is paused, stale or broken.
    NotDue,
    /// As many runs are active as may be: look again when one ends.
    AtLimit,
    /// The run is to be made, and the DAG's next run to be set.
    Create {
        /// The run.
        run: Box<CreatedRun>,
        /// The run after it.
        next_run: Option<NextRun>,
        /// Why the run after it is not known, for the log. A custom timetable's answer has to be asked of Python.
        next_run_error: Option<TimetableError>,
    },
    /// The run exists already; only the DAG's next run is to be set.
    Skip {
        /// The run after it.
        next_run: Option<NextRun>,
        /// Why it is not known.
        next_run_error: Option<TimetableError>,
    },
}

/// Decides about a DAG's due run. When it says [`RunCreation::Create`] or [`RunCreation::Skip`] the caller applies it
/// and asks again, with one more active run, until nothing is due: that is how missed runs are made up for.
#[must_use]
pub fn create_due_run(facts: &RunCreationFacts<'_>, now: Timestamp) -> RunCreation {
    let record = facts.record;
    let Some(due) = record.next_run.as_ref().filter(|next| next.run_after <= now) else {
        return RunCreation::NotDue;
    };
    if record.is_paused
        || record.is_stale
        || record.has_import_errors
        || !allows(facts.dag, DagRunType::Scheduled)
    {
        return RunCreation::NotDue;
    }
    if !facts.exists_already && i64::from(facts.active_runs) >= i64::from(record.max_active_runs) {
        return RunCreation::AtLimit;
    }
    let (next_run, next_run_error) = match following(facts.dag, facts.timetable, due, now) {
        Ok(next_run) => (next_run, None),
        Err(error) => (None, Some(error)),
    };
    if facts.exists_already {
        return RunCreation::Skip { next_run, next_run_error };
    }
    let run_id = facts.timetable.generate_run_id(
        DagRunType::Scheduled,
        due.run_after,
        due.partition_key.as_deref(),
        facts.random,
    );
    let run = Box::new(CreatedRun {
        run_id: RunId::from(run_id),
        run_type: DagRunType::Scheduled,
        triggered_by: TriggeredBy::Timetable,
        state: DagRunState::Queued,
        logical_date: due.logical_date,
        data_interval_start: due.data_interval_start,
        data_interval_end: due.data_interval_end,
        run_after: due.run_after,
        partition_key: due.partition_key.clone(),
    });
    RunCreation::Create { run, next_run, next_run_error }
}

fn allows(dag: &Dag, run_type: DagRunType) -> bool {
    dag.allowed_run_types.as_ref().is_none_or(|types| types.contains(run_type.as_str()))
}

fn following(
    dag: &Dag,
    timetable: &Timetable,
    made: &NextRun,
    now: Timestamp,
) -> Result<Option<NextRun>, TimetableError> {
    let data_interval = match (made.data_interval_start, made.data_interval_end) {
        (Some(start), Some(end)) => Some(gust_timetable::DataInterval { start, end }),
        _ => None,
    };
    let last = timetable.last_run(made.run_after, data_interval, made.partition_key.as_deref())?;
    next_run_of(dag, timetable, Some(&last), now)
}

/// The run that a DAG's timetable makes after `last_automated`, or its first. For a DAG that was parsed anew, and after
/// each run made.
///
/// # Errors
/// Where the timetable cannot say: [`TimetableError::AskPython`] for a custom one.
pub fn next_run_of(
    dag: &Dag,
    timetable: &Timetable,
    last_automated: Option<&LastRun>,
    now: Timestamp,
) -> Result<Option<NextRun>, TimetableError> {
    let next = timetable.try_next_run(last_automated, &time_restriction(dag), now)?;
    Ok(next.map(|next| NextRun {
        run_after: next.run_after,
        logical_date: next.logical_date,
        data_interval_start: next.data_interval.map(|interval| interval.start),
        data_interval_end: next.data_interval.map(|interval| interval.end),
        partition_key: next.partition_key,
    }))
}

/// The dates between which a DAG runs (`airflow/serialization/definitions/dag.py: SerializedDAG._time_restriction`).
#[must_use]
pub fn time_restriction(dag: &Dag) -> TimeRestriction {
    let starts = dag.tasks().iter().filter_map(|task| task.start_date).chain(dag.start_date);
    let ends: Vec<Timestamp> = dag.tasks().iter().filter_map(|task| task.end_date).collect();
    let latest = if ends.len() == dag.tasks().len() {
        ends.into_iter().chain(dag.end_date).max()
    } else {
        dag.end_date
    };
    TimeRestriction { earliest: starts.min(), latest, catchup: dag.catchup }
}

/// Whether a DAG is to be paused because its last runs all failed. `newest_states` are the states of its newest runs by
/// `run_after`, whatever they are, at least `limit` of them if there are so many
/// (`airflow/models/dagrun.py: _check_last_n_dagruns_failed`).
#[must_use]
pub fn should_pause(newest_states: &[DagRunState], limit: u32) -> bool {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    limit > 0
        && newest_states.len() >= limit
        && newest_states[..limit].iter().all(|state| *state == DagRunState::Failed)
}
