//! Timetables without a schedule of their own: `airflow/timetables/{simple,events}.py`.

use chrono::{DateTime, Utc};

use crate::{DataInterval, NextRun, TimeRestriction};

/// `@once`: one run, at the start date or at once.
pub(crate) fn next_once(
    last: Option<&DataInterval>,
    restriction: &TimeRestriction,
    now: DateTime<Utc>,
) -> Option<NextRun> {
    if last.is_some() {
        return None;
    }
    let at = restriction.earliest.unwrap_or(now);
    restriction.latest.is_none_or(|latest| at <= latest).then(|| NextRun::exact(at))
}

/// `@continuous`: a run as soon as the last one has ended, covering the time since.
pub(crate) fn next_continuous(
    last: Option<&DataInterval>,
    restriction: &TimeRestriction,
    now: DateTime<Utc>,
) -> Option<NextRun> {
    let first = restriction.earliest.unwrap_or(now);
    let (start, end) = match last {
        Some(last) if last.end > now => (first, first.checked_add_signed(last.end - last.start)?),
        Some(last) => (last.end, now),
        None => (first, first.max(now)),
    };
    restriction.latest.is_none_or(|latest| end <= latest).then(|| NextRun::interval(start, end))
}

/// `EventsTimetable`: runs at listed instants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// The instants, in the order in which they are offered.
    pub dates: Vec<DateTime<Utc>>,
    /// Whether a manual run takes the latest past event for its interval instead of its own time.
    pub restrict_to_events: bool,
    /// What Airflow shows in long.
    pub description: String,
    /// What Airflow shows in short.
    pub summary: String,
}

impl Events {
    pub(crate) fn next_run(
        &self,
        last: Option<&DataInterval>,
        restriction: &TimeRestriction,
        now: DateTime<Utc>,
    ) -> Option<NextRun> {
        let earliest = match restriction.earliest {
            earliest if restriction.catchup => earliest,
            earliest => Some(earliest.map_or(now, |earliest| earliest.max(now))),
        };
        let due = |at: &&DateTime<Utc>| {
            earliest.is_none_or(|earliest| **at >= earliest) && last.is_none_or(|last| **at > last.end)
        };
        let at = *self.dates.iter().find(due)?;
        restriction.latest.is_none_or(|latest| at <= latest).then(|| NextRun::exact(at))
    }

    pub(crate) fn manual(&self, run_after: DateTime<Utc>) -> DataInterval {
        let first = match self.dates.first() {
            Some(first) if self.restrict_to_events => *first,
            _ => return DataInterval::exact(run_after),
        };
        if run_after < first {
            return DataInterval::exact(first);
        }
        DataInterval::exact(self.dates.iter().rev().find(|at| **at <= run_after).copied().unwrap_or(first))
    }
}
