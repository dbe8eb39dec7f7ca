//! What can go wrong in reading a timetable or in asking it.

use thiserror::Error;

/// Why a timetable cannot be read, or cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TimetableError {
    /// The serialized form does not have the shape that Airflow writes.
    #[error("timetable {classpath}: {what}")]
    Malformed {
        /// The class that was being read; "?" where not even that is known.
        classpath: String,
        /// What is wrong, where, and what would be right.
        what: String,
    },
    /// A cron expression that Airflow (croniter) refuses too.
    #[error("cron expression {expression:?} is not valid: {problem}")]
    BadCron {
        /// The expression as the DAG author wrote it.
        expression: String,
        /// Which field is wrong and what would be right.
        problem: String,
    },
    /// A time zone that the IANA database does not know.
    #[error("time zone {name:?} is not known: {hint}")]
    UnknownZone {
        /// The name as written.
        name: String,
        /// What would be right.
        hint: String,
    },
    /// A class in `airflow.timetables` that Airflow 3.3.2 does not have.
    #[error("timetable {classpath} is not one of Airflow 3.3.2: {hint}")]
    UnknownBuiltin {
        /// The class path as serialized.
        classpath: String,
        /// What would be right.
        hint: String,
    },
    /// The timetable is the user's own class: only Python can answer.
    #[error("timetable {classpath} is a custom class and must be asked in Python")]
    AskPython {
        /// The class path as serialized.
        classpath: String,
    },
    /// The cron expression matches no date within fifty years, as the 30th of February.
    #[error("cron expression {expression:?} matches no time within fifty years of {from}")]
    NoMatch {
        /// The expression.
        expression: String,
        /// The local time from which a match was sought.
        from: String,
    },
    /// A schedule whose next time is not after the one before.
    #[error("timetable {summary} does not advance past {at}")]
    DoesNotAdvance {
        /// The timetable as Airflow summarises it.
        summary: String,
        /// The instant at which it stands still.
        at: String,
    },
    /// Date arithmetic that leaves the calendar (years 1 to 9999), or names a date that does not exist.
    #[error("date arithmetic with {what} leaves the calendar")]
    OutOfCalendar {
        /// What was added or replaced.
        what: String,
    },
    /// A partition key that does not have the timetable's format.
    #[error("partition key {key:?} does not match the timetable's key format {format:?}")]
    BadPartitionKey {
        /// The key as given.
        key: String,
        /// The `strftime` format that keys have.
        format: String,
    },
}
