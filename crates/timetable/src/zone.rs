//! Time zones as Airflow sees them through pendulum: IANA names, or a fixed offset in seconds.

use chrono::{DateTime, Duration, FixedOffset, MappedLocalTime, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::{OffsetName, TZ_VARIANTS, Tz};
use serde_json::Value;

use crate::TimetableError;

/// The zone in whose wall-clock time a cron expression is meant.
///
/// The built-in database (chrono-tz) lists changes of the clocks up to the year 2099; from then on they stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// A zone of the IANA database.
    Named(Tz),
    /// A fixed distance from UTC (pendulum's `FixedTimezone`, serialized as a number of seconds).
    Fixed(FixedOffset),
}

/// The name of an offset that has none: `-05`, `+0530`.
fn digits(seconds: i32) -> String {
    let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
    let text = format!("{sign}{:02}", minutes / 60);
    if minutes % 60 == 0 { text } else { format!("{text}{:02}", minutes % 60) }
}

impl Zone {
    /// Reads what `airflow/serialization/encoders.py: encode_timezone` writes: a name or a number of seconds.
    pub fn from_serialized(value: &Value) -> Result<Self, TimetableError> {
        match value {
            Value::String(name) => Self::from_name(name),
            Value::Number(number) => number
                .as_i64()
                .and_then(|seconds| i32::try_from(seconds).ok())
                .and_then(FixedOffset::east_opt)
                .map(Self::Fixed)
                .ok_or_else(|| TimetableError::UnknownZone {
                    name: number.to_string(),
                    hint: "an offset is a whole number of seconds between -86399 and 86399".into(),
                }),
            other => Err(TimetableError::UnknownZone {
                name: other.to_string(),
                hint: "expected an IANA name such as \"Europe/Berlin\" or an offset in seconds".into(),
            }),
        }
    }

    /// Reads an IANA name. As in pendulum, only "UTC" may be written in any case.
    pub fn from_name(name: &str) -> Result<Self, TimetableError> {
        if name.eq_ignore_ascii_case("utc") {
            return Ok(Self::Named(Tz::UTC));
        }
        name.parse().map(Self::Named).map_err(|_| {
            let last =
                |text: &str| text.rsplit('/').next().unwrap_or(text).to_ascii_lowercase().replace(' ', "_");
            let wanted = last(name);
            let near = TZ_VARIANTS.iter().find(|zone| last(zone.name()) == wanted);
            TimetableError::UnknownZone {
                name: name.into(),
                hint: near.map_or_else(
                    || "expected an IANA name such as \"Europe/Berlin\"".into(),
                    |zone| format!("did you mean {:?}?", zone.name()),
                ),
            }
        })
    }

    fn offset_seconds(self, at: DateTime<Utc>) -> i32 {
        match self {
            Self::Named(zone) => zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc(),
            Self::Fixed(offset) => offset.local_minus_utc(),
        }
    }

    /// The distance of this zone's clocks from UTC at an instant.
    #[must_use]
    pub fn offset_at(self, at: DateTime<Utc>) -> Duration {
        Duration::seconds(i64::from(self.offset_seconds(at)))
    }

    /// What this zone's clocks show at an instant.
    #[must_use]
    pub fn to_naive(self, at: DateTime<Utc>) -> NaiveDateTime {
        at.naive_utc() + self.offset_at(at)
    }

    /// The instant at which this zone's clocks show a time.
    ///
    /// A time that occurs twice means its second occurrence, and one that the clocks skip is moved forward by as much
    /// as they skip: `airflow/_shared/timezones/timezone.py: make_aware` (fold=1) on pendulum's `Timezone.convert`.
    #[must_use]
    pub fn to_instant(self, local: NaiveDateTime) -> DateTime<Utc> {
        let zone = match self {
            Self::Fixed(offset) => {
                return (local - Duration::seconds(i64::from(offset.local_minus_utc()))).and_utc();
            }
            Self::Named(zone) => zone,
        };
        match zone.offset_from_local_datetime(&local) {
            MappedLocalTime::Single(offset) | MappedLocalTime::Ambiguous(_, offset) => {
                (local - Duration::seconds(i64::from(offset.fix().local_minus_utc()))).and_utc()
            }
            MappedLocalTime::None => {
                // In a gap the offset before the change still counts: 02:30 in a skipped hour is what would have been
                // 02:30, an hour later on the new clocks. Sixteen hours on, the change is certainly past; from the
                // offset after it, the one before it follows.
                let mut after = self.offset_at((local + Duration::hours(16)).and_utc());
                let mut before = self.offset_at((local - after).and_utc());
                after = self.offset_at((local - before).and_utc());
                before = self.offset_at((local - after).and_utc());
                (local - before).and_utc()
            }
        }
    }

    /// The zone's short name at an instant, as `strftime("%Z")` prints it.
    #[must_use]
    pub fn abbreviation(self, at: DateTime<Utc>) -> String {
        match self {
            Self::Named(zone) => {
                let offset = zone.offset_from_utc_datetime(&at.naive_utc());
                offset.abbreviation().map_or_else(|| digits(offset.fix().local_minus_utc()), str::to_owned)
            }
            Self::Fixed(offset) => {
                let seconds = offset.local_minus_utc();
                let minutes = seconds.abs() / 60;
                format!("{}{:02}:{:02}", if seconds < 0 { '-' } else { '+' }, minutes / 60, minutes % 60)
            }
        }
    }
}
