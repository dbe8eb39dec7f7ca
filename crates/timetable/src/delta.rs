//! Time differences: Python's `timedelta` and dateutil's `relativedelta`.

use chrono::{DateTime, Datelike, Days, Duration, NaiveDate, Timelike, Utc};
use serde_json::{Map, Value};

use crate::ticks::Ticks;
use crate::{TimetableError, python};

/// A step in time.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// A fixed length (`datetime.timedelta`), in whole microseconds.
    Fixed(Duration),
    /// A step on the calendar (`dateutil.relativedelta`).
    Calendar(RelativeDelta),
}

impl Delta {
    /// Reads what `airflow/serialization/encoders.py: encode_interval` writes: seconds, or a relativedelta's fields.
    pub fn from_serialized(value: &Value) -> Result<Self, String> {
        match value {
            Value::Number(number) => {
                let seconds = number.as_f64().unwrap_or(f64::NAN);
                let micros = python::timedelta_micros(0.0, 0.0, 0.0, seconds, 0.0);
                micros
                    .map(|micros| Self::Fixed(Duration::microseconds(micros)))
                    .ok_or_else(|| format!("{number} seconds are beyond what a timedelta can hold"))
            }
            Value::Object(fields) => RelativeDelta::from_serialized(fields).map(Self::Calendar),
            other => {
                Err(format!("expected a number of seconds or the fields of a relativedelta, found {other}"))
            }
        }
    }

    /// `at + self`, on UTC's calendar.
    pub fn add_to(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
        self.step(at, 1.0)
    }

    /// `at - self`, on UTC's calendar.
    pub fn subtract_from(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
        self.step(at, -1.0)
    }

    fn step(&self, at: DateTime<Utc>, sign: f64) -> Result<DateTime<Utc>, TimetableError> {
        let moved = match self {
            Self::Fixed(length) if sign < 0.0 => at.checked_sub_signed(*length),
            Self::Fixed(length) => at.checked_add_signed(*length),
            Self::Calendar(relative) => relative.apply(at, sign),
        };
        moved
            .filter(|at| (1..=9999).contains(&at.year()))
            .ok_or_else(|| TimetableError::OutOfCalendar { what: self.to_python() })
    }

    /// Whether a schedule with this step could ever go forward (`airflow/timetables/_delta.py: DeltaMixin.validate`).
    #[must_use]
    pub fn may_advance(&self) -> bool {
        match self {
            Self::Fixed(length) => *length > Duration::zero(),
            Self::Calendar(relative) => relative.may_advance(),
        }
    }

    /// The text of `str(delta)` in Python, which Airflow shows as the schedule's summary.
    #[must_use]
    pub fn to_python(&self) -> String {
        match self {
            Self::Fixed(length) => python::timedelta_text(*length),
            Self::Calendar(relative) => relative.to_python(),
        }
    }
}

impl Ticks for Delta {
    fn next(&self, current: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
        self.add_to(current)
    }

    fn previous(&self, current: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
        self.subtract_from(current)
    }

    // A delta has no fixed instants: whatever time it is, is one.
    fn align_to_next(&self, current: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
        Ok(current)
    }

    fn align_to_previous(&self, current: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
        Ok(current)
    }

    fn summary(&self) -> String {
        self.to_python()
    }
}

/// dateutil's `relativedelta`: parts to add, parts to replace, and a weekday to move on to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RelativeDelta {
    /// Years to add.
    pub years: i64,
    /// Months to add.
    pub months: i64,
    /// Days to add; parts from here down to microseconds may be fractions.
    pub days: f64,
    /// Days to add after February of a leap year.
    pub leapdays: i64,
    /// Hours to add.
    pub hours: f64,
    /// Minutes to add.
    pub minutes: f64,
    /// Seconds to add.
    pub seconds: f64,
    /// Microseconds to add.
    pub microseconds: f64,
    /// Year to set.
    pub year: Option<i64>,
    /// Month to set.
    pub month: Option<i64>,
    /// Day of the month to set; a month too short for it takes its last day.
    pub day: Option<i64>,
    /// Weekday to move to: 0 for Monday to 6 for Sunday, and the how-maniest, negative for backwards.
    pub weekday: Option<(i64, Option<i64>)>,
    /// Hour to set.
    pub hour: Option<i64>,
    /// Minute to set.
    pub minute: Option<i64>,
    /// Second to set.
    pub second: Option<i64>,
    /// Microsecond to set.
    pub microsecond: Option<i64>,
}

impl RelativeDelta {
    fn from_serialized(fields: &Map<String, Value>) -> Result<Self, String> {
        let mut delta = Self::default();
        for (name, value) in fields {
            let number = || value.as_f64().ok_or_else(|| format!("{name}: expected a number, found {value}"));
            let whole = || {
                let number = number()?;
                #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and within i32")]
                if number.fract() == 0.0 && number.abs() <= f64::from(i32::MAX) {
                    Ok(number as i64)
                } else {
                    Err(format!("{name}: expected a whole number, found {value}"))
                }
            };
            match name.as_str() {
                "years" => delta.years = whole()?,
                "months" => delta.months = whole()?,
                "weeks" => delta.days += number()? * 7.0,
                "days" => delta.days += number()?,
                "leapdays" => delta.leapdays = whole()?,
                "hours" => delta.hours = number()?,
                "minutes" => delta.minutes = number()?,
                "seconds" => delta.seconds = number()?,
                "microseconds" => delta.microseconds = number()?,
                "year" => delta.year = Some(whole()?),
                "month" => delta.month = Some(whole()?),
                "day" => delta.day = Some(whole()?),
                "hour" => delta.hour = Some(whole()?),
                "minute" => delta.minute = Some(whole()?),
                "second" => delta.second = Some(whole()?),
                "microsecond" => delta.microsecond = Some(whole()?),
                "weekday" => delta.weekday = Some(weekday(value)?),
                _ => {
                    return Err(format!(
                        "{name:?} is no field of a relativedelta; expected years, months, weeks, days, hours, minutes, \
                         seconds, microseconds, leapdays, weekday, or a part to set (year … microsecond)"
                    ));
                }
            }
        }
        delta.carry();
        Ok(delta)
    }

    /// Carries what overflows a part into the next larger one (dateutil's `_fix`).
    fn carry(&mut self) {
        fn overflow(part: &mut f64, limit: f64, larger: &mut f64) {
            if part.abs() > limit - 1.0 {
                let sign = 1f64.copysign(*part);
                let size = *part * sign;
                *part = size.rem_euclid(limit) * sign;
                *larger += (size / limit).floor() * sign;
            }
        }
        overflow(&mut self.microseconds, 1_000_000.0, &mut self.seconds);
        overflow(&mut self.seconds, 60.0, &mut self.minutes);
        overflow(&mut self.minutes, 60.0, &mut self.hours);
        overflow(&mut self.hours, 24.0, &mut self.days);
        if self.months.abs() > 11 {
            self.years += self.months / 12;
            self.months %= 12;
        }
    }

    fn may_advance(&self) -> bool {
        let sets_something = self.year.is_some()
            || self.month.is_some()
            || self.day.is_some()
            || self.weekday.is_some()
            || self.hour.is_some()
            || self.minute.is_some()
            || self.second.is_some()
            || self.microsecond.is_some();
        sets_something
            || self.years > 0
            || self.months > 0
            || [self.days, self.hours, self.minutes, self.seconds, self.microseconds]
                .iter()
                .any(|part| *part > 0.0)
    }

    /// Whether the step's length depends on the calendar.
    pub(crate) fn counts_months(&self) -> bool {
        self.months != 0 || self.years != 0
    }

    /// A rough length (`airflow/timetables/interval.py: _relativedelta_in_seconds`), used for rounding only.
    pub(crate) fn rough_seconds(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "years and months are at most 2^31")]
        let (years, months) = (self.years as f64, self.months as f64);
        years * 365.0 * 86_400.0
            + months * 30.0 * 86_400.0
            + self.days * 86_400.0
            + self.hours * 3_600.0
            + self.minutes * 60.0
            + self.seconds
    }

    fn apply(&self, at: DateTime<Utc>, sign: f64) -> Option<DateTime<Utc>> {
        let direction = if sign < 0.0 { -1 } else { 1 };
        let mut year =
            self.year.filter(|year| *year != 0).unwrap_or(i64::from(at.year())) + self.years * direction;
        let mut month = self.month.filter(|month| *month != 0).unwrap_or(i64::from(at.month()));
        month += self.months * direction;
        if month > 12 {
            (year, month) = (year + 1, month - 12);
        } else if month < 1 {
            (year, month) = (year - 1, month + 12);
        }
        let year = i32::try_from(year).ok().filter(|year| (1..=9999).contains(year))?;
        let month = u32::try_from(month).ok()?;
        let first = NaiveDate::from_ymd_opt(year, month, 1)?;
        let last_day = i64::from(first.num_days_in_month());
        let day = self.day.filter(|day| *day != 0).unwrap_or(i64::from(at.day())).min(last_day);
        let date = first.with_day(u32::try_from(day).ok()?)?;
        let part = |set: Option<i64>, kept: u32| u32::try_from(set.unwrap_or(i64::from(kept))).ok();
        let start = date.and_hms_micro_opt(
            part(self.hour, at.hour())?,
            part(self.minute, at.minute())?,
            part(self.second, at.second())?,
            part(self.microsecond, at.nanosecond() / 1_000).filter(|micros| *micros < 1_000_000)?,
        )?;
        let mut days = self.days * sign;
        if self.leapdays != 0 && month > 2 && date.leap_year() {
            #[expect(clippy::cast_precision_loss, reason = "leap days are at most 2^31")]
            let leapdays = self.leapdays as f64;
            days += leapdays;
        }
        let micros = python::timedelta_micros(
            days,
            self.hours * sign,
            self.minutes * sign,
            self.seconds * sign,
            self.microseconds * sign,
        )?;
        let mut moved = start.checked_add_signed(Duration::microseconds(micros))?;
        if let Some((weekday, nth)) = self.weekday {
            let nth = nth.unwrap_or(1);
            let weeks = (nth.abs() - 1) * 7;
            let today = i64::from(moved.weekday().num_days_from_monday());
            moved = if nth > 0 {
                moved.checked_add_days(Days::new(
                    u64::try_from(weeks + (7 - today + weekday).rem_euclid(7)).ok()?,
                ))?
            } else {
                moved.checked_sub_days(Days::new(
                    u64::try_from(weeks + (today - weekday).rem_euclid(7)).ok()?,
                ))?
            };
        }
        Some(moved.and_utc())
    }

    fn to_python(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "years, months and leap days are at most 2^31")]
        let added = [
            ("years", self.years as f64),
            ("months", self.months as f64),
            ("days", self.days),
            ("leapdays", self.leapdays as f64),
            ("hours", self.hours),
            ("minutes", self.minutes),
            ("seconds", self.seconds),
            ("microseconds", self.microseconds),
        ];
        let mut parts: Vec<String> = added
            .iter()
            .filter(|(_, value)| *value != 0.0)
            .map(|(name, value)| format!("{name}={}", python::signed_general(*value)))
            .collect();
        let mut set =
            |name: &str, value: Option<String>| parts.extend(value.map(|value| format!("{name}={value}")));
        let number = |value: Option<i64>| value.map(|value| value.to_string());
        set("year", number(self.year));
        set("month", number(self.month));
        set("day", number(self.day));
        set("weekday", self.weekday.map(|(day, nth)| weekday_text(day, nth)));
        set("hour", number(self.hour));
        set("minute", number(self.minute));
        set("second", number(self.second));
        set("microsecond", number(self.microsecond));
        format!("relativedelta({})", parts.join(", "))
    }
}

fn weekday(value: &Value) -> Result<(i64, Option<i64>), String> {
    let parts: Option<Vec<i64>> =
        value.as_array().and_then(|parts| parts.iter().map(Value::as_i64).collect());
    match parts.as_deref() {
        Some([day @ 0..=6]) => Ok((*day, None)),
        Some([day @ 0..=6, nth]) if *nth != 0 && nth.abs() < 10_000 => Ok((*day, Some(*nth))),
        _ => Err(format!(
            "weekday: expected [day] or [day, n] with a day from 0 (Monday) to 6 and n not 0, found {value}"
        )),
    }
}

fn weekday_text(day: i64, nth: Option<i64>) -> String {
    const NAMES: [&str; 7] = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];
    let name = usize::try_from(day).ok().and_then(|day| NAMES.get(day)).unwrap_or(&"?");
    nth.map_or_else(|| (*name).into(), |nth| format!("{name}({nth:+})"))
}
