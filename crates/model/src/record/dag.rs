use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Timestamp;
use crate::{BundleName, BundleVersion, DagId, DagVersionId};

/// When a DAG's timetable runs it next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextRun {
    /// The run is made at this moment.
    pub run_after: Timestamp,
    /// The date it will stand for.
    pub logical_date: Option<Timestamp>,
    /// Start of its data interval.
    pub data_interval_start: Option<Timestamp>,
    /// End of its data interval.
    pub data_interval_end: Option<Timestamp>,
    /// Its partition.
    pub partition_key: Option<String>,
}

/// A DAG as the scheduler and the pages need it, without its graph (`airflow/models/dag.py: DagModel`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DagRecord {
    /// The DAG.
    pub dag_id: DagId,
    /// Its name as pages show it, where it differs from the id.
    pub dag_display_name: Option<String>,
    /// The bundle it came from.
    pub bundle_name: BundleName,
    /// The bundle version it was last parsed from.
    pub bundle_version: Option<BundleVersion>,
    /// Its file, relative to the bundle.
    pub relative_fileloc: String,
    /// Its newest version.
    pub current_version_id: DagVersionId,
    /// Whether it is paused: no new runs start and no new tries are admitted.
    pub is_paused: bool,
    /// Whether its file no longer holds it.
    pub is_stale: bool,
    /// Whether its file's newest version has errors, so that an older one serves.
    pub has_import_errors: bool,
    /// One line, as its author wrote it.
    pub description: Option<String>,
    /// Its owners, sorted, joined by commas.
    pub owners: String,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// The timetable in short (`0 0 * * *`).
    pub timetable_summary: Option<String>,
    /// The timetable in words.
    pub timetable_description: Option<String>,
    /// Whether a clock, rather than assets or people alone, makes its runs.
    pub is_scheduled: bool,
    /// How many of its runs may be running at once.
    pub max_active_runs: i32,
    /// How many task instances of one of its runs may be executing at once.
    pub max_active_tasks: i32,
    /// After how many failed runs in a row it is paused; 0 for never.
    pub max_consecutive_failed_dag_runs: i32,
    /// The run that its timetable makes next.
    pub next_run: Option<NextRun>,
    /// The condition on assets that starts a run, in Airflow's serialized form; null if none.
    pub asset_expression: Value,
    /// When its file was last parsed.
    pub last_parsed_at: Timestamp,
    /// How long that took, in seconds.
    pub last_parse_duration: f64,
}

/// A stored version of a DAG's graph (`airflow/models/dag_version.py`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DagVersion {
    /// The version's row.
    pub id: DagVersionId,
    /// The DAG.
    pub dag_id: DagId,
    /// 1, 2, 3 … within the DAG.
    pub version_number: i32,
    /// The bundle it was parsed from.
    pub bundle_name: BundleName,
    /// The bundle version it was parsed from; newer ones with the same graph keep this version.
    pub bundle_version: Option<BundleVersion>,
    /// Hex SHA-256 of the canonical serialized form.
    pub hash: String,
    /// When it was first seen.
    pub created_at: Timestamp,
}

/// Why a file, or a DAG in it, could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportError {
    /// Grows; names it in the API.
    pub id: i64,
    /// The bundle.
    pub bundle_name: BundleName,
    /// The file, relative to the bundle.
    pub filename: String,
    /// What went wrong, with the traceback where there is one.
    pub stack_trace: String,
    /// When it was seen.
    pub timestamp: Timestamp,
}
