//! Moments as Airflow's API reads and writes them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Timelike, Utc};
use gust_model::record::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// A moment in Airflow's form: UTC with `Z`, with six digits of a second's fraction or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub(crate) struct Moment(pub Timestamp);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(self.0))
    }
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

/// A moment as text in Airflow's form.
pub(crate) fn format(at: Timestamp) -> String {
    let digits = if at.nanosecond() / 1000 == 0 { SecondsFormat::Secs } else { SecondsFormat::Micros };
    at.to_rfc3339_opts(digits, true)
}

/// A moment that was read, and whether it named its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadMoment {
    pub at: Timestamp,
    pub is_aware: bool,
}

/// Reads an ISO 8601 moment, or a date; without an offset it is UTC.
pub(crate) fn parse(text: &str) -> Option<ReadMoment> {
    let text = text.trim();
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(ReadMoment { at: at.with_timezone(&Utc), is_aware: true });
    }
    for pattern in ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z"] {
        if let Ok(at) = DateTime::parse_from_str(text, pattern) {
            return Some(ReadMoment { at: at.with_timezone(&Utc), is_aware: true });
        }
    }
    // A `+` that nobody encoded arrives as a space.
    if let Some((head, tail)) = text.rsplit_once(' ')
        && head.contains('T')
        && tail.len() == 5
        && tail.as_bytes()[2] == b':'
    {
        return parse(&format!("{head}+{tail}"));
    }
    for pattern in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
        if let Ok(at) = NaiveDateTime::parse_from_str(text, pattern) {
            return Some(ReadMoment { at: at.and_utc(), is_aware: false });
        }
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(ReadMoment { at: date.and_hms_opt(0, 0, 0)?.and_utc(), is_aware: false })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z", true)]
    #[case("2026-01-02T03:04:05.5+02:00", "2026-01-02T01:04:05.500000Z", true)]
    #[case("2026-01-02T03:04:05 02:00", "2026-01-02T01:04:05Z", true)]
    #[case("2026-01-02T03:04:05+0200", "2026-01-02T01:04:05Z", true)]
    #[case("2026-01-02T03:04:05", "2026-01-02T03:04:05Z", false)]
    #[case("2026-01-02", "2026-01-02T00:00:00Z", false)]
    fn moments_are_read_as_airflow_reads_them(
        #[case] text: &str,
        #[case] shown: &str,
        #[case] is_aware: bool,
    ) {
        let read = parse(text).unwrap();
        assert_eq!((format(read.at).as_str(), read.is_aware), (shown, is_aware));
    }

    #[rstest]
    #[case("")]
    #[case("yesterday")]
    #[case("2026-13-01")]
    fn what_is_no_moment_is_none(#[case] text: &str) {
        assert_eq!(parse(text), None);
    }
}
