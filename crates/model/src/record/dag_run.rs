use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Timestamp;
use crate::{
    BackfillId, BundleVersion, DagId, DagRunId, DagRunState, DagRunType, DagVersionId, RunId, TriggeredBy,
};

/// One run of a DAG (`airflow/models/dagrun.py: DagRun`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DagRun {
    /// The row.
    pub id: DagRunId,
    /// The DAG.
    pub dag_id: DagId,
    /// The run's id within its DAG.
    pub run_id: RunId,
    /// Why it exists.
    pub run_type: DagRunType,
    /// Its state.
    pub state: DagRunState,
    /// The date it stands for; a run made by hand may have none.
    pub logical_date: Option<Timestamp>,
    /// Start of the data interval.
    pub data_interval_start: Option<Timestamp>,
    /// End of the data interval.
    pub data_interval_end: Option<Timestamp>,
    /// It does not start before this.
    pub run_after: Timestamp,
    /// When it was made.
    pub queued_at: Timestamp,
    /// When its first task instances were planned.
    pub start_date: Option<Timestamp>,
    /// When it ended.
    pub end_date: Option<Timestamp>,
    /// Parameters given with the trigger; null or an object.
    pub conf: Value,
    /// Through which door it came.
    pub triggered_by: Option<TriggeredBy>,
    /// Who asked for it.
    pub triggering_user: Option<String>,
    /// The DAG version whose graph it follows. It moves only on a clear that asks for the newest.
    pub dag_version_id: DagVersionId,
    /// The bundle version whose code it runs; none for a bundle without versions.
    pub bundle_version: Option<BundleVersion>,
    /// How often it was cleared.
    pub clear_number: i32,
    /// The backfill it belongs to.
    pub backfill_id: Option<BackfillId>,
    /// Which partition of its assets it stands for.
    pub partition_key: Option<String>,
    /// A person's note.
    pub note: Option<String>,
    /// How many of its task instances are not finished, as the planner last accounted them.
    pub unfinished_count: i64,
    /// How many of those are under way ([`crate::TaskInstanceState::is_under_way`]), as last accounted.
    pub under_way_count: i64,
    /// Whether its task instances have been made.
    pub is_expanded: bool,
    /// Whether the next pass has to look at all of its unfinished task instances rather than at what changed: after
    /// its start, a clear, a mark, or a change in the run before it.
    pub is_dirty: bool,
    /// When the planner has to look at it though nothing changed: its time limit.
    pub due_at: Option<Timestamp>,
    /// The last pass that looked at it.
    pub last_scheduling_decision: Option<Timestamp>,
    /// Grows with every write of the row.
    pub change_seq: i64,
}
