//! Moments as Python writes them, where Airflow hashes or shows that text.

use chrono::{DateTime, Timelike, Utc};

/// `str(datetime)` of an aware datetime in UTC, or `None` for none: `2026-11-23 18:00:00+00:00`, with six digits of
/// microseconds unless they are zero.
pub(crate) fn text_of(moment: Option<DateTime<Utc>>) -> String {
    match moment {
        None => "None".to_owned(),
        Some(moment) => {
            let format = if moment.nanosecond() / 1000 == 0 {
                "%Y-%m-%d %H:%M:%S+00:00"
            } else {
                "%Y-%m-%d %H:%M:%S%.6f+00:00"
            };
            moment.format(format).to_string()
        }
    }
}
