//! What the periodic timetables have in common: a series of instants.

use chrono::{DateTime, Utc};

use crate::TimetableError;

/// A series of instants that can be walked in both directions.
pub(crate) trait Ticks {
    /// The first instant after `current`.
    fn next(&self, current: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError>;
    /// The last instant before `current`.
    fn previous(&self, current: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError>;
    /// `current` where it is an instant of the series, else the next one.
    fn align_to_next(&self, current: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError>;
    /// `current` where it is an instant of the series, else the previous one.
    fn align_to_previous(&self, current: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError>;
    /// The series as Airflow shows it in one word.
    fn summary(&self) -> String;
}
