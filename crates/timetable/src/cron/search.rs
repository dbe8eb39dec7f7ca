//! The next and the previous match of a cron expression, on naive time.

use chrono::{Datelike, Days, Duration, NaiveDate, NaiveDateTime, NaiveTime, SubsecRound, Timelike};

use super::field::{FieldKind, Nth};
use super::parse::CronExpression;
use crate::TimetableError;

/// How far croniter looks for a match.
const YEARS_SOUGHT: i32 = 50;

/// Which restrictions on the day count in one search.
#[derive(Clone, Copy)]
struct DayRule {
    by_month_day: bool,
    by_weekday: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Forward,
    Backward,
}

impl CronExpression {
    /// The first match after a time.
    pub fn next_after(&self, from: NaiveDateTime) -> Result<NaiveDateTime, TimetableError> {
        let start = if self.second.is_some() {
            from.trunc_subsecs(0).checked_add_signed(Duration::seconds(1))
        } else {
            whole_minute(from).checked_add_signed(Duration::minutes(1))
        };
        self.search(from, start, Direction::Forward)
    }

    /// The last match before a time.
    pub fn previous_before(&self, from: NaiveDateTime) -> Result<NaiveDateTime, TimetableError> {
        let start = from
            .checked_sub_signed(Duration::microseconds(1))
            .map(|start| if self.second.is_some() { start.trunc_subsecs(0) } else { whole_minute(start) });
        self.search(from, start, Direction::Backward)
    }

    fn search(
        &self,
        from: NaiveDateTime,
        start: Option<NaiveDateTime>,
        direction: Direction,
    ) -> Result<NaiveDateTime, TimetableError> {
        let no_match = || TimetableError::NoMatch { expression: self.text.clone(), from: from.to_string() };
        let start = start.ok_or_else(no_match)?;
        let seek =
            |by_month_day, by_weekday| self.seek(start, direction, DayRule { by_month_day, by_weekday });
        if self.day.any || self.weekday.any {
            return seek(true, true).ok_or_else(no_match);
        }
        // Both day fields are restricted, so either suffices. `#` and `W` restrict both halves, though, and then each
        // half has to match somewhere.
        let (by_month_day, by_weekday) = (seek(true, false), seek(false, true));
        let halves_are_independent = self.nth.is_empty() && self.nearest_weekday.is_none();
        match (by_month_day, by_weekday) {
            (Some(a), Some(b)) => Ok(if direction == Direction::Forward { a.min(b) } else { a.max(b) }),
            (Some(one), None) | (None, Some(one)) if halves_are_independent => Ok(one),
            _ => Err(no_match()),
        }
    }

    fn seek(&self, start: NaiveDateTime, direction: Direction, rule: DayRule) -> Option<NaiveDateTime> {
        let forward = direction == Direction::Forward;
        let mut date = start.date();
        let mut whole_day = false;
        while (date.year() - start.year()).abs() <= YEARS_SOUGHT {
            if self
                .year
                .as_ref()
                .is_some_and(|year| u32::try_from(date.year()).is_ok_and(|y| !year.allows(y)))
            {
                date = if forward {
                    NaiveDate::from_ymd_opt(date.year() + 1, 1, 1)?
                } else {
                    NaiveDate::from_ymd_opt(date.year() - 1, 12, 31)?
                };
                whole_day = true;
                continue;
            }
            if !self.month.allows(date.month()) {
                let first = date.with_day(1)?;
                date = if forward {
                    first.checked_add_months(chrono::Months::new(1))?
                } else {
                    first.pred_opt()?
                };
                whole_day = true;
                continue;
            }
            if self.day_matches(date, rule)
                && let Some(time) =
                    self.time_of_day(if whole_day { None } else { Some(start.time()) }, forward)
            {
                return Some(date.and_time(time));
            }
            date = if forward {
                date.checked_add_days(Days::new(1))?
            } else {
                date.checked_sub_days(Days::new(1))?
            };
            whole_day = true;
        }
        None
    }

    fn day_matches(&self, date: NaiveDate, rule: DayRule) -> bool {
        let by_month_day = match self.nearest_weekday {
            Some(day) => nearest_weekday(date, day) == date.day(),
            None if rule.by_month_day => {
                self.day.allows(date.day()) || (self.day.last_day && date.day() == days_in_month(date))
            }
            None => true,
        };
        let weekday = date.weekday().num_days_from_sunday();
        let by_weekday = if self.nth.is_empty() {
            !rule.by_weekday || self.weekday.allows(weekday)
        } else {
            self.nth.get(&weekday).is_some_and(|which| {
                which.iter().any(|which| match which {
                    Nth::Count(count) => (date.day() - 1) / 7 + 1 == *count,
                    Nth::Last => date.day() + 7 > days_in_month(date),
                })
            })
        };
        by_month_day && by_weekday
    }

    /// The first (or last) allowed time of a day, not before (or not after) a bound.
    fn time_of_day(&self, bound: Option<NaiveTime>, forward: bool) -> Option<NaiveTime> {
        let ordered = |mut values: Vec<u32>| {
            if !forward {
                values.reverse();
            }
            values
        };
        let hours = ordered(self.hour.expand(FieldKind::Hour));
        let minutes = ordered(self.minute.expand(FieldKind::Minute));
        let seconds =
            ordered(self.second.as_ref().map_or_else(|| vec![0], |field| field.expand(FieldKind::Second)));
        let within = |time: &NaiveTime| {
            bound.is_none_or(|bound| if forward { *time >= bound } else { *time <= bound })
        };
        for hour in &hours {
            if let Some(bound) = bound
                && (if forward { *hour < bound.hour() } else { *hour > bound.hour() })
            {
                continue;
            }
            for minute in &minutes {
                let mut times =
                    seconds.iter().filter_map(|second| NaiveTime::from_hms_opt(*hour, *minute, *second));
                if let Some(time) = times.find(|time| within(time)) {
                    return Some(time);
                }
            }
        }
        None
    }
}

fn whole_minute(at: NaiveDateTime) -> NaiveDateTime {
    at.trunc_subsecs(0) - Duration::seconds(i64::from(at.second()))
}

fn days_in_month(date: NaiveDate) -> u32 {
    u32::from(date.num_days_in_month())
}

/// The day of the month on which the weekday nearest `day` falls, staying within the month.
fn nearest_weekday(date: NaiveDate, day: u32) -> u32 {
    let last = days_in_month(date);
    let day = day.min(last);
    match date.with_day(day).map(|date| date.weekday()) {
        Some(chrono::Weekday::Sat) if day > 1 => day - 1,
        Some(chrono::Weekday::Sat) => day + 2,
        Some(chrono::Weekday::Sun) if day < last => day + 1,
        Some(chrono::Weekday::Sun) => day - 2,
        _ => day,
    }
}
