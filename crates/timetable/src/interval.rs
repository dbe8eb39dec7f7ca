//! Timetables that run at the end of each of a row of data intervals: `airflow/timetables/interval.py`.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};

use crate::cron::CronSchedule;
use crate::ticks::Ticks;
use crate::trigger::advance;
use crate::{DataInterval, Delta, NextRun, TimeRestriction, TimetableError, python};

/// `CronDataIntervalTimetable`: the intervals lie between the ticks of a cron expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronDataInterval {
    /// Where the intervals meet.
    pub schedule: CronSchedule,
}

/// `DeltaDataIntervalTimetable`: each interval is as long as a delta.
#[derive(Debug, Clone, PartialEq)]
pub struct DeltaDataInterval {
    /// The length of an interval.
    pub delta: Delta,
}

fn next_run(
    ticks: &impl Ticks,
    skip_to_latest: impl Fn(Option<DateTime<Utc>>) -> Result<DateTime<Utc>, TimetableError>,
    last: Option<&DataInterval>,
    restriction: &TimeRestriction,
) -> Result<Option<NextRun>, TimetableError> {
    let earliest = if restriction.catchup {
        restriction.earliest.map(|earliest| ticks.align_to_next(earliest)).transpose()?
    } else {
        Some(skip_to_latest(restriction.earliest)?)
    };
    let start = match last {
        None => match earliest {
            Some(earliest) => earliest,
            None => return Ok(None),
        },
        Some(last) => {
            // The schedule may have changed since the last run, so its end is aligned to the present one.
            let aligned = ticks.align_to_previous(last.end)?;
            let mut start = earliest.map_or(aligned, |earliest| earliest.max(aligned));
            if start <= last.start {
                start = ticks.next(start)?;
                if start <= last.start {
                    let at = last.start.to_rfc3339();
                    return Err(TimetableError::DoesNotAdvance { summary: ticks.summary(), at });
                }
            }
            start
        }
    };
    if restriction.latest.is_some_and(|latest| start > latest) {
        return Ok(None);
    }
    Ok(Some(NextRun::interval(start, ticks.next(start)?)))
}

impl CronDataInterval {
    /// The start of the last interval that is complete, at the earliest the first one after the start date.
    fn skip_to_latest(
        &self,
        earliest: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, TimetableError> {
        let schedule = &self.schedule;
        let last_start = schedule.previous(now)?;
        let next_start = schedule.next(last_start)?;
        let start = match next_start.cmp(&now) {
            Ordering::Equal => last_start,
            Ordering::Greater => schedule.previous(last_start)?,
            Ordering::Less => {
                let at = now.to_rfc3339();
                return Err(TimetableError::DoesNotAdvance { summary: schedule.summary(), at });
            }
        };
        Ok(match earliest {
            None => start,
            Some(earliest) => start.max(schedule.align_to_next(earliest)?),
        })
    }

    pub(crate) fn next_run(
        &self,
        last: Option<&DataInterval>,
        restriction: &TimeRestriction,
        now: DateTime<Utc>,
    ) -> Result<Option<NextRun>, TimetableError> {
        next_run(&self.schedule, |earliest| self.skip_to_latest(earliest, now), last, restriction)
    }

    pub(crate) fn manual(&self, run_after: DateTime<Utc>) -> Result<DataInterval, TimetableError> {
        let end = self.schedule.align_to_previous(run_after)?;
        Ok(DataInterval { start: self.schedule.previous(end)?, end })
    }
}

impl DeltaDataInterval {
    /// The last boundary at or before `now`: counted in steps from `anchor` where steps have no fixed length, else on
    /// a grid that begins in 1970.
    fn floor(&self, now: DateTime<Utc>, anchor: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
        let seconds = match &self.delta {
            Delta::Calendar(relative) if relative.counts_months() => {
                let mut boundary = anchor;
                loop {
                    let next = advance(&self.delta, boundary)?;
                    if next > now {
                        return Ok(boundary);
                    }
                    boundary = next;
                }
            }
            Delta::Calendar(relative) => relative.rough_seconds(),
            #[expect(clippy::cast_precision_loss, reason = "Python divides the same numbers")]
            Delta::Fixed(length) => length.num_microseconds().unwrap_or(i64::MAX) as f64 / 1e6,
        };
        let at = python::timestamp(now);
        let rounded = at - python::float_modulo(at, seconds);
        let floor = if rounded.is_finite() { python::from_timestamp(rounded) } else { None };
        floor.ok_or_else(|| TimetableError::OutOfCalendar { what: self.delta.to_python() })
    }

    fn skip_to_latest(
        &self,
        earliest: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, TimetableError> {
        let start = self.delta.subtract_from(self.floor(now, earliest.unwrap_or(now))?)?;
        Ok(earliest.map_or(start, |earliest| earliest.max(start)))
    }

    pub(crate) fn next_run(
        &self,
        last: Option<&DataInterval>,
        restriction: &TimeRestriction,
        now: DateTime<Utc>,
    ) -> Result<Option<NextRun>, TimetableError> {
        next_run(&self.delta, |earliest| self.skip_to_latest(earliest, now), last, restriction)
    }

    pub(crate) fn manual(&self, run_after: DateTime<Utc>) -> Result<DataInterval, TimetableError> {
        Ok(DataInterval { start: self.delta.subtract_from(run_after)?, end: run_after })
    }
}
