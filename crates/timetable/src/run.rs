//! The question that a timetable is asked, and its answer.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The span of data that a run works on (`airflow/timetables/base.py: DataInterval`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataInterval {
    /// Where the span begins; also the run's logical date.
    pub start: DateTime<Utc>,
    /// Where it ends.
    pub end: DateTime<Utc>,
}

impl DataInterval {
    /// The "interval" of one instant.
    #[must_use]
    pub const fn exact(at: DateTime<Utc>) -> Self {
        Self { start: at, end: at }
    }
}

/// What the scheduler knows of a DAG's last automated run (scheduled or backfilled, never manual).
///
/// Build it with [`crate::Timetable::last_run`], which fills in what Airflow infers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// When the run was due.
    pub run_after: DateTime<Utc>,
    /// Its data interval; none for a run of a partition.
    pub data_interval: Option<DataInterval>,
}

/// The bounds on a DAG's runs, from its `start_date`, `end_date` and `catchup` and those of its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TimeRestriction {
    /// No run before this instant.
    pub earliest: Option<DateTime<Utc>>,
    /// No run after this instant.
    pub latest: Option<DateTime<Utc>>,
    /// Whether runs that were missed are made up for.
    pub catchup: bool,
}

/// A run to be made (`airflow/timetables/base.py: DagRunInfo`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextRun {
    /// When it is due.
    pub run_after: DateTime<Utc>,
    /// Its logical date: the start of its data interval; none for a partition.
    pub logical_date: Option<DateTime<Utc>>,
    /// Its data interval; none for a partition.
    pub data_interval: Option<DataInterval>,
    /// The key of the partition that it makes, for timetables of partitions.
    pub partition_key: Option<String>,
    /// The instant that the key stands for.
    pub partition_date: Option<DateTime<Utc>>,
}

impl NextRun {
    pub(crate) const fn interval(start: DateTime<Utc>, end: DateTime<Utc>) -> Self {
        Self {
            run_after: end,
            logical_date: Some(start),
            data_interval: Some(DataInterval { start, end }),
            partition_key: None,
            partition_date: None,
        }
    }

    pub(crate) const fn exact(at: DateTime<Utc>) -> Self {
        Self::interval(at, at)
    }

    /// This run as the last one, for asking what follows it.
    #[must_use]
    pub const fn as_last(&self) -> LastRun {
        LastRun { run_after: self.run_after, data_interval: self.data_interval }
    }
}
