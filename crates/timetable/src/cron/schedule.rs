//! A cron expression in a time zone, as `airflow/timetables/_cron.py: CronMixin`.

use chrono::{DateTime, Utc};

use super::CronExpression;
use crate::ticks::Ticks;
use crate::{TimetableError, Zone};

/// A cron expression and the zone in whose local time it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronSchedule {
    /// When.
    pub expression: CronExpression,
    /// On whose clocks.
    pub zone: Zone,
}

impl Ticks for CronSchedule {
    fn next(&self, current: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
        let local = self.zone.to_naive(current);
        let scheduled = self.expression.next_after(local)?;
        // A schedule that runs every hour counts elapsed time, so that it also runs in the hour which the clocks repeat.
        Ok(if self.expression.covers_every_hour() {
            current + (scheduled - local)
        } else {
            self.zone.to_instant(scheduled)
        })
    }

    fn previous(&self, current: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
        let local = self.zone.to_naive(current);
        let scheduled = self.expression.previous_before(local)?;
        Ok(if self.expression.covers_every_hour() {
            current - (local - scheduled)
        } else {
            self.zone.to_instant(scheduled)
        })
    }

    fn align_to_next(&self, current: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
        let next = self.next(current)?;
        Ok(if self.previous(next)? == current { current } else { next })
    }

    fn align_to_previous(&self, current: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
        let previous = self.previous(current)?;
        Ok(if self.next(previous)? == current { current } else { previous })
    }

    fn summary(&self) -> String {
        self.expression.as_str().to_owned()
    }
}
