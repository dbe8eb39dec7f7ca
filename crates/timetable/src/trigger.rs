//! Timetables that run at instants: `airflow/timetables/trigger.py`.

use chrono::{DateTime, Duration, Utc};
use serde_json::Number;

use crate::cron::CronSchedule;
use crate::strftime::strftime;
use crate::strptime::strptime;
use crate::ticks::Ticks;
use crate::{DataInterval, Delta, LastRun, NextRun, TimeRestriction, TimetableError};

/// Whether the first run of a DAG without a start date may be one that is already past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunImmediately {
    /// Always.
    Always,
    /// If it is no longer ago than this.
    Within(Duration),
    /// If it is no longer ago than a tenth of the time between runs, and at least if it is within five minutes.
    ///
    /// Airflow documents `False` as "never" but treats it, like `None`, so.
    Default,
}

impl RunImmediately {
    /// Reads `run_immediately`: `true`, seconds written as a float, or anything else for the default.
    pub(crate) fn from_serialized(value: Option<&serde_json::Value>) -> Self {
        let seconds = |number: &Number| number.is_f64().then(|| number.as_f64()).flatten();
        match value {
            Some(serde_json::Value::Bool(true)) => Self::Always,
            Some(serde_json::Value::Number(number)) => seconds(number)
                .and_then(|seconds| crate::python::timedelta_micros(0.0, 0.0, 0.0, seconds, 0.0))
                .map_or(Self::Default, |micros| Self::Within(Duration::microseconds(micros))),
            _ => Self::Default,
        }
    }
}

/// `CronTriggerTimetable`: runs whenever a cron expression says.
#[derive(Debug, Clone, PartialEq)]
pub struct CronTrigger {
    /// When it runs.
    pub schedule: CronSchedule,
    /// How long a run's data interval is; it ends when the run is due.
    pub interval: Delta,
    /// What the first run is where there is no start date.
    pub run_immediately: RunImmediately,
}

/// `DeltaTriggerTimetable`: runs once every so long.
#[derive(Debug, Clone, PartialEq)]
pub struct DeltaTrigger {
    /// The time between runs.
    pub delta: Delta,
    /// How long a run's data interval is; it ends when the run is due.
    pub interval: Delta,
}

/// `MultipleCronTriggerTimetable`: runs whenever one of several cron expressions says.
#[derive(Debug, Clone, PartialEq)]
pub struct MultipleCronTrigger {
    /// The expressions, each as a timetable of its own; at least one.
    pub timetables: Vec<CronTrigger>,
}

/// `CronPartitionTimetable`: runs whenever a cron expression says, each run for one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct CronPartition {
    /// When it runs.
    pub trigger: CronTrigger,
    /// By how many ticks of the expression the partition's date is away from the run's.
    pub run_offset: i64,
    /// The `strftime` format of the partition's key, in the schedule's zone.
    pub key_format: String,
}

/// The instant of the next run, given the instant after which it must lie.
fn next_start(
    ticks: &impl Ticks,
    first_run: impl Fn() -> Result<DateTime<Utc>, TimetableError>,
    last: Option<DateTime<Utc>>,
    restriction: &TimeRestriction,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, TimetableError> {
    let start = if restriction.catchup {
        match (last, restriction.earliest) {
            (Some(last), _) => ticks.next(last)?,
            (None, None) => first_run()?,
            (None, Some(earliest)) => ticks.align_to_next(earliest)?,
        }
    } else {
        let mut start = ticks.align_to_previous(now)?;
        if let Some(last) = last {
            start = start.max(ticks.next(last)?);
        } else if restriction.earliest.is_none() {
            start = start.max(first_run()?);
        }
        if let Some(earliest) = restriction.earliest {
            start = start.max(ticks.align_to_next(earliest)?);
        }
        start
    };
    Ok(restriction.latest.is_none_or(|latest| latest >= start).then_some(start))
}

impl CronTrigger {
    fn first_run(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
        let past = self.schedule.align_to_previous(now)?;
        let next = self.schedule.align_to_next(now)?;
        let grace = match self.run_immediately {
            RunImmediately::Always => return Ok(past),
            RunImmediately::Within(grace) => grace,
            RunImmediately::Default => ((next - past) / 10).max(Duration::minutes(5)),
        };
        Ok(if now - past <= grace { past } else { next })
    }

    fn next_start(
        &self,
        last: Option<DateTime<Utc>>,
        restriction: &TimeRestriction,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, TimetableError> {
        next_start(&self.schedule, || self.first_run(now), last, restriction, now)
    }

    pub(crate) fn next_run(
        &self,
        last: Option<&DataInterval>,
        restriction: &TimeRestriction,
        now: DateTime<Utc>,
    ) -> Result<Option<NextRun>, TimetableError> {
        let end = self.next_start(last.map(|last| last.end), restriction, now)?;
        end.map(|end| Ok(NextRun::interval(self.interval.subtract_from(end)?, end))).transpose()
    }

    pub(crate) fn manual(&self, run_after: DateTime<Utc>) -> Result<DataInterval, TimetableError> {
        Ok(DataInterval { start: self.interval.subtract_from(run_after)?, end: run_after })
    }
}

impl DeltaTrigger {
    pub(crate) fn next_run(
        &self,
        last: Option<&DataInterval>,
        restriction: &TimeRestriction,
        now: DateTime<Utc>,
    ) -> Result<Option<NextRun>, TimetableError> {
        let first_run = || self.delta.align_to_previous(now);
        let end = next_start(&self.delta, first_run, last.map(|last| last.end), restriction, now)?;
        end.map(|end| Ok(NextRun::interval(self.interval.subtract_from(end)?, end))).transpose()
    }

    pub(crate) fn manual(&self, run_after: DateTime<Utc>) -> Result<DataInterval, TimetableError> {
        Ok(DataInterval { start: self.interval.subtract_from(run_after)?, end: run_after })
    }
}

impl MultipleCronTrigger {
    pub(crate) fn next_run(
        &self,
        last: Option<&DataInterval>,
        restriction: &TimeRestriction,
        now: DateTime<Utc>,
    ) -> Result<Option<NextRun>, TimetableError> {
        // Catching up takes the earliest run. Otherwise as many runs as possible are passed over: the latest of those
        // already due, or else the earliest to come.
        let rank = |run: &Option<NextRun>| {
            let Some(date) = run.as_ref().and_then(|run| run.logical_date) else { return i64::MAX };
            let micros = date.timestamp_micros();
            if !restriction.catchup && date <= now { -micros } else { micros }
        };
        let mut best: Option<(i64, Option<NextRun>)> = None;
        for timetable in &self.timetables {
            let run = timetable.next_run(last, restriction, now)?;
            let rank = rank(&run);
            if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                best = Some((rank, run));
            }
        }
        Ok(best.and_then(|(_, run)| run))
    }

    pub(crate) fn manual(&self, run_after: DateTime<Utc>) -> Result<DataInterval, TimetableError> {
        // All of them share one interval, so the earliest start is anybody's.
        let mut least = DataInterval::exact(run_after);
        for (index, timetable) in self.timetables.iter().enumerate() {
            let interval = timetable.manual(run_after)?;
            if index == 0 || interval.start < least.start {
                least = interval;
            }
        }
        Ok(least)
    }
}

impl CronPartition {
    pub(crate) fn next_run(
        &self,
        last: Option<&LastRun>,
        restriction: &TimeRestriction,
        now: DateTime<Utc>,
    ) -> Result<Option<NextRun>, TimetableError> {
        let Some(run_after) = self.trigger.next_start(last.map(|last| last.run_after), restriction, now)?
        else {
            return Ok(None);
        };
        let mut date = run_after;
        for _ in 0..self.run_offset.unsigned_abs() {
            let schedule = &self.trigger.schedule;
            date = if self.run_offset > 0 { schedule.next(date)? } else { schedule.previous(date)? };
        }
        Ok(Some(self.run_for(run_after, date)))
    }

    fn run_for(&self, run_after: DateTime<Utc>, date: DateTime<Utc>) -> NextRun {
        NextRun {
            run_after,
            logical_date: None,
            data_interval: None,
            partition_key: Some(strftime(date, self.trigger.schedule.zone, &self.key_format)),
            partition_date: Some(date),
        }
    }

    /// The instant that a key of this timetable stands for (`_decode_partition_date`).
    pub(crate) fn decode(&self, key: &str) -> Result<DateTime<Utc>, TimetableError> {
        strptime(key, &self.key_format).map(|local| self.trigger.schedule.zone.to_instant(local)).ok_or_else(
            || TimetableError::BadPartitionKey { key: key.into(), format: self.key_format.clone() },
        )
    }

    /// The runs whose partition lies in a span, both ends included, for a backfill
    /// (`airflow/timetables/trigger.py: iter_partition_dagrun_infos`): the bounds' wall-clock readings in UTC are taken
    /// as readings of the schedule's own zone.
    pub(crate) fn runs_between(
        &self,
        earliest: DateTime<Utc>,
        latest: DateTime<Utc>,
        at_most: usize,
    ) -> Result<Vec<NextRun>, TimetableError> {
        let schedule = &self.trigger.schedule;
        let localize = |at: DateTime<Utc>| schedule.zone.to_instant(at.naive_utc());
        let latest = localize(latest);
        let mut date = schedule.align_to_next(localize(earliest))?;
        let mut runs = Vec::new();
        while date <= latest && runs.len() < at_most {
            runs.push(self.run_for(date, date));
            date = advance(schedule, date)?;
        }
        Ok(runs)
    }
}

/// The next tick, which must lie after the given one.
pub(crate) fn advance(ticks: &impl Ticks, from: DateTime<Utc>) -> Result<DateTime<Utc>, TimetableError> {
    let next = ticks.next(from)?;
    if next > from {
        Ok(next)
    } else {
        Err(TimetableError::DoesNotAdvance { summary: ticks.summary(), at: from.to_rfc3339() })
    }
}
