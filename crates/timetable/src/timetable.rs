//! The timetable of a DAG, whatever its kind.

use chrono::{DateTime, Utc};
use gust_model::DagRunType;
use serde_json::Value;

use crate::cron::CronSchedule;
use crate::interval::{CronDataInterval, DeltaDataInterval};
use crate::simple::{self, Events};
use crate::trigger::{CronPartition, CronTrigger, DeltaTrigger, MultipleCronTrigger};
use crate::{
    AssetExpression, DataInterval, LastRun, NextRun, TimeRestriction, TimetableError, decode, python,
};

/// When a DAG runs: one of Airflow's built-in timetables, or a class of the user's own.
#[derive(Debug, Clone, PartialEq)]
pub enum Timetable {
    /// `schedule=None`: only when asked for.
    Null,
    /// `@once`.
    Once,
    /// `@continuous`: again as soon as the last run has ended.
    Continuous,
    /// Only when asked for; its tasks name their partitions while they run.
    PartitionedAtRuntime,
    /// When its assets were updated.
    AssetTriggered(AssetExpression),
    /// When partitions of its assets were updated.
    PartitionedAsset(PartitionedAsset),
    /// At the instants of a cron expression.
    CronTrigger(CronTrigger),
    /// At the instants of several cron expressions.
    MultipleCronTrigger(MultipleCronTrigger),
    /// Once every so long.
    DeltaTrigger(DeltaTrigger),
    /// At the instants of a cron expression, each run for one partition.
    CronPartition(CronPartition),
    /// At the end of each interval between the ticks of a cron expression.
    CronDataInterval(CronDataInterval),
    /// At the end of each interval of one length.
    DeltaDataInterval(DeltaDataInterval),
    /// When its assets were updated, and by a timetable of time as well.
    AssetOrTime(Box<AssetOrTime>),
    /// At listed instants.
    Events(Events),
    /// As a class of the user's own says, which must be asked in Python.
    Custom(CustomTimetable),
}

/// `PartitionedAssetTimetable`.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionedAsset {
    /// The assets whose partitions count.
    pub assets: AssetExpression,
    /// For some assets, how an event's partition key becomes a run's; the mappers as serialized.
    pub mappers: Vec<(AssetExpression, Value)>,
    /// The mapper of all other assets, as serialized.
    pub default_mapper: Value,
}

/// `AssetOrTimeSchedule`.
#[derive(Debug, Clone, PartialEq)]
pub struct AssetOrTime {
    /// The assets.
    pub assets: AssetExpression,
    /// The timetable of time.
    pub timetable: Timetable,
}

/// A timetable class that the user wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomTimetable {
    /// Where Python finds the class.
    pub classpath: String,
    /// What its `serialize` wrote, for its `deserialize`.
    pub data: Value,
}

impl Timetable {
    /// Reads Airflow's serialized form, `{"__type": class path, "__var": data}`.
    ///
    /// # Errors
    /// Where the data lacks something, where a cron expression or time zone is not valid, and where the class is in
    /// `airflow.timetables` but unknown to Airflow 3.3.2. The error says what would be right.
    pub fn from_serialized(value: &Value) -> Result<Self, TimetableError> {
        decode::timetable(value)
    }

    /// The next run, or none: what `DAG.next_dagrun_info` in `airflow/serialization/definitions/dag.py` answers, which
    /// is what the scheduler asks. It says none too where the timetable fails; [`Self::try_next_run`] says why.
    #[must_use]
    pub fn next_run(
        &self,
        last_automated: Option<&LastRun>,
        restriction: &TimeRestriction,
        now: DateTime<Utc>,
    ) -> Option<NextRun> {
        self.try_next_run(last_automated, restriction, now).ok().flatten()
    }

    /// The next run, or none (`Timetable.next_dagrun_info_v2` in Airflow).
    ///
    /// # Errors
    /// Where a cron expression never matches, where date arithmetic leaves the calendar, and
    /// [`TimetableError::AskPython`] for a custom class.
    pub fn try_next_run(
        &self,
        last_automated: Option<&LastRun>,
        restriction: &TimeRestriction,
        now: DateTime<Utc>,
    ) -> Result<Option<NextRun>, TimetableError> {
        match self {
            Self::CronPartition(partition) => partition.next_run(last_automated, restriction, now),
            _ => {
                self.next_after(last_automated.and_then(|last| last.data_interval).as_ref(), restriction, now)
            }
        }
    }

    /// `Timetable.next_dagrun_info`, which knows of data intervals only.
    fn next_after(
        &self,
        last: Option<&DataInterval>,
        restriction: &TimeRestriction,
        now: DateTime<Utc>,
    ) -> Result<Option<NextRun>, TimetableError> {
        match self {
            Self::Null | Self::PartitionedAtRuntime | Self::AssetTriggered(_) | Self::PartitionedAsset(_) => {
                Ok(None)
            }
            Self::Once => Ok(simple::next_once(last, restriction, now)),
            Self::Continuous => Ok(simple::next_continuous(last, restriction, now)),
            Self::CronTrigger(cron) => cron.next_run(last, restriction, now),
            Self::MultipleCronTrigger(crons) => crons.next_run(last, restriction, now),
            Self::DeltaTrigger(delta) => delta.next_run(last, restriction, now),
            // Reached inside AssetOrTime only, where Airflow treats it as the cron trigger that it derives from.
            Self::CronPartition(partition) => partition.trigger.next_run(last, restriction, now),
            Self::CronDataInterval(cron) => cron.next_run(last, restriction, now),
            Self::DeltaDataInterval(delta) => delta.next_run(last, restriction, now),
            Self::AssetOrTime(both) => both.timetable.next_after(last, restriction, now),
            Self::Events(events) => Ok(events.next_run(last, restriction, now)),
            Self::Custom(custom) => Err(custom.ask_python()),
        }
    }

    /// The data interval of a run that was asked for by hand (`infer_manual_data_interval`).
    ///
    /// # Errors
    /// As [`Self::try_next_run`].
    pub fn manual_run_interval(&self, run_after: DateTime<Utc>) -> Result<DataInterval, TimetableError> {
        match self {
            Self::Null
            | Self::Once
            | Self::Continuous
            | Self::PartitionedAtRuntime
            | Self::AssetTriggered(_)
            | Self::PartitionedAsset(_) => Ok(DataInterval::exact(run_after)),
            Self::CronTrigger(cron) => cron.manual(run_after),
            Self::MultipleCronTrigger(crons) => crons.manual(run_after),
            Self::DeltaTrigger(delta) => delta.manual(run_after),
            Self::CronPartition(partition) => partition.trigger.manual(run_after),
            Self::CronDataInterval(cron) => cron.manual(run_after),
            Self::DeltaDataInterval(delta) => delta.manual(run_after),
            Self::AssetOrTime(both) => both.timetable.manual_run_interval(run_after),
            Self::Events(events) => Ok(events.manual(run_after)),
            Self::Custom(custom) => Err(custom.ask_python()),
        }
    }

    /// What the scheduler knows of an existing run (`run_info_from_dag_run` in `airflow/timetables/base.py`): a run of
    /// a partition has no data interval, and one without its own is given that of a manual run.
    ///
    /// # Errors
    /// As [`Self::try_next_run`].
    pub fn last_run(
        &self,
        run_after: DateTime<Utc>,
        data_interval: Option<DataInterval>,
        partition_key: Option<&str>,
    ) -> Result<LastRun, TimetableError> {
        let data_interval = match (partition_key, data_interval) {
            (Some(_), _) => None,
            (None, Some(interval)) => Some(interval),
            (None, None) => Some(self.manual_run_interval(run_after)?),
        };
        Ok(LastRun { run_after, data_interval })
    }

    /// The runs of a span, both ends included, at most so many, for a backfill
    /// (`iter_dagrun_infos_between` in `airflow/serialization/definitions/dag.py`).
    ///
    /// # Errors
    /// As [`Self::try_next_run`], for the first run; where a later one fails, the runs end before it, as in Airflow.
    pub fn runs_between(
        &self,
        earliest: DateTime<Utc>,
        latest: DateTime<Utc>,
        at_most: usize,
    ) -> Result<Vec<NextRun>, TimetableError> {
        if let Self::CronPartition(partition) = self {
            return partition.runs_between(earliest, latest, at_most);
        }
        let restriction = TimeRestriction { earliest: Some(earliest), latest: Some(latest), catchup: true };
        let mut runs: Vec<NextRun> = Vec::new();
        while runs.len() < at_most {
            let last = runs.last().map(NextRun::as_last);
            // With catchup the clock does not count, except to @continuous, which cannot be backfilled beyond `latest`.
            match self.try_next_run(last.as_ref(), &restriction, latest) {
                Ok(Some(run)) if runs.last() != Some(&run) => runs.push(run),
                Err(error) if runs.is_empty() => return Err(error),
                _ => break,
            }
        }
        Ok(runs)
    }

    /// The instant that a partition key stands for (`resolve_partition_date` in `airflow/timetables/base.py`); none
    /// without a key and for timetables whose keys stand for no instant. For [`Self::PartitionedAsset`] the partition
    /// mappers would have to be asked, which this crate leaves to Python.
    ///
    /// # Errors
    /// [`TimetableError::BadPartitionKey`], and [`TimetableError::AskPython`] where only Python knows.
    pub fn partition_date(
        &self,
        partition_key: Option<&str>,
    ) -> Result<Option<DateTime<Utc>>, TimetableError> {
        let Some(key) = partition_key else { return Ok(None) };
        match self {
            Self::CronPartition(partition) => partition.decode(key).map(Some),
            Self::Custom(custom) => Err(custom.ask_python()),
            Self::PartitionedAsset(_) => {
                Err(TimetableError::AskPython { classpath: self.type_name().into() })
            }
            _ => Ok(None),
        }
    }

    /// Whether runs come by themselves; only `schedule=None` and its like say no.
    #[must_use]
    pub fn can_be_scheduled(&self) -> bool {
        match self {
            Self::Null | Self::PartitionedAtRuntime => false,
            Self::AssetOrTime(both) => both.timetable.can_be_scheduled(),
            _ => true,
        }
    }

    /// Whether it runs again and again by time.
    #[must_use]
    pub fn is_periodic(&self) -> bool {
        match self {
            Self::Null
            | Self::Once
            | Self::Continuous
            | Self::PartitionedAtRuntime
            | Self::AssetTriggered(_)
            | Self::PartitionedAsset(_) => false,
            Self::AssetOrTime(both) => both.timetable.is_periodic(),
            _ => true,
        }
    }

    /// How many runs may be active at once, where the timetable limits that.
    #[must_use]
    pub fn active_runs_limit(&self) -> Option<u32> {
        match self {
            Self::Continuous => Some(1),
            Self::AssetOrTime(both) => both.timetable.active_runs_limit(),
            _ => None,
        }
    }

    /// Whether runs are for partitions instead of data intervals.
    #[must_use]
    pub fn is_partitioned(&self) -> bool {
        matches!(self, Self::CronPartition(_) | Self::PartitionedAsset(_))
    }

    /// Whether updates of assets make runs.
    #[must_use]
    pub fn is_asset_triggered(&self) -> bool {
        self.asset_condition().is_some()
    }

    /// Whether [`Self::next_run`] cannot answer because the class is the user's own.
    #[must_use]
    pub fn must_ask_python(&self) -> bool {
        match self {
            Self::Custom(_) => true,
            Self::AssetOrTime(both) => both.timetable.must_ask_python(),
            _ => false,
        }
    }

    /// The condition on assets, where there is one.
    #[must_use]
    pub fn asset_condition(&self) -> Option<&AssetExpression> {
        match self {
            Self::AssetTriggered(assets) => Some(assets),
            Self::PartitionedAsset(partitioned) => Some(&partitioned.assets),
            Self::AssetOrTime(both) => Some(&both.assets),
            _ => None,
        }
    }

    /// By which fields of a run Airflow orders runs in its pages.
    #[must_use]
    pub fn run_ordering(&self) -> &'static [&'static str] {
        match self {
            Self::Null
            | Self::Once
            | Self::Continuous
            | Self::PartitionedAtRuntime
            | Self::AssetTriggered(_)
            | Self::PartitionedAsset(_)
            | Self::AssetOrTime(_) => &["logical_date"],
            _ => &["data_interval_end", "logical_date"],
        }
    }

    /// The schedule in one word, as Airflow's pages and its API (`timetable_summary`) show it.
    #[must_use]
    pub fn summary(&self) -> String {
        let cron = |schedule: &CronSchedule| schedule.expression.as_str().to_owned();
        match self {
            Self::Null => "None".into(),
            Self::Once => "@once".into(),
            Self::Continuous => "@continuous".into(),
            Self::PartitionedAtRuntime => "PartitionedAtRuntime".into(),
            Self::AssetTriggered(_) => "Asset".into(),
            Self::PartitionedAsset(_) => "Partitioned Asset".into(),
            Self::CronTrigger(trigger) => cron(&trigger.schedule),
            Self::MultipleCronTrigger(crons) => {
                crons.timetables.iter().map(|trigger| cron(&trigger.schedule)).collect::<Vec<_>>().join(", ")
            }
            Self::DeltaTrigger(trigger) => trigger.delta.to_python(),
            Self::CronPartition(partition) => cron(&partition.trigger.schedule),
            Self::CronDataInterval(interval) => cron(&interval.schedule),
            Self::DeltaDataInterval(interval) => interval.delta.to_python(),
            Self::AssetOrTime(both) => format!("Asset or {}", both.timetable.summary()),
            Self::Events(events) => events.summary.clone(),
            Self::Custom(custom) => custom.class_name().into(),
        }
    }

    /// The schedule in words, as Airflow's pages and its API (`timetable_description`) show it; may be empty.
    #[must_use]
    pub fn description(&self) -> String {
        let cron = |schedule: &CronSchedule| schedule.expression.description();
        match self {
            Self::Null => "Never, external triggers only".into(),
            Self::Once => "Once, as soon as possible".into(),
            Self::Continuous => "As frequently as possible, but only one run at a time.".into(),
            Self::PartitionedAtRuntime => "Never, partition key(s) set at runtime".into(),
            Self::AssetTriggered(_) | Self::PartitionedAsset(_) => "Triggered by assets".into(),
            Self::CronTrigger(trigger) => cron(&trigger.schedule),
            Self::MultipleCronTrigger(crons) => {
                crons.timetables.iter().map(|trigger| cron(&trigger.schedule)).collect::<Vec<_>>().join(", ")
            }
            Self::DeltaTrigger(_) | Self::DeltaDataInterval(_) | Self::Custom(_) => String::new(),
            Self::CronPartition(partition) => cron(&partition.trigger.schedule),
            Self::CronDataInterval(interval) => cron(&interval.schedule),
            Self::AssetOrTime(both) => format!("Triggered by assets or {}", both.timetable.description()),
            Self::Events(events) => events.description.clone(),
        }
    }

    /// The class by which Airflow lets DAGs be filtered: a built-in's name, a custom class' whole path.
    #[must_use]
    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "NullTimetable",
            Self::Once => "OnceTimetable",
            Self::Continuous => "ContinuousTimetable",
            Self::PartitionedAtRuntime => "PartitionedAtRuntime",
            Self::AssetTriggered(_) => "AssetTriggeredTimetable",
            Self::PartitionedAsset(_) => "PartitionedAssetTimetable",
            Self::CronTrigger(_) => "CronTriggerTimetable",
            Self::MultipleCronTrigger(_) => "MultipleCronTriggerTimetable",
            Self::DeltaTrigger(_) => "DeltaTriggerTimetable",
            Self::CronPartition(_) => "CronPartitionTimetable",
            Self::CronDataInterval(_) => "CronDataIntervalTimetable",
            Self::DeltaDataInterval(_) => "DeltaDataIntervalTimetable",
            Self::AssetOrTime(_) => "AssetOrTimeSchedule",
            Self::Events(_) => "EventsTimetable",
            Self::Custom(custom) => &custom.classpath,
        }
    }

    /// The id of a new run, as the timetable words it (`Timetable.generate_run_id`).
    ///
    /// `random` is eight letters or digits, which the caller draws; only runs of partitions contain it. For a custom
    /// class this is what its base class answers. Runs that the scheduler makes for assets take [`generate_run_id`].
    #[must_use]
    pub fn generate_run_id(
        &self,
        run_type: DagRunType,
        run_after: DateTime<Utc>,
        partition_key: Option<&str>,
        random: &str,
    ) -> String {
        let due = python::iso_format(run_after);
        match self {
            Self::CronPartition(_) => match partition_key.filter(|key| !key.is_empty()) {
                Some(key) => format!("{run_type}__{due}__{key}__{random}"),
                None => format!("{run_type}__{due}__{random}"),
            },
            Self::AssetOrTime(both) if run_type != DagRunType::AssetTriggered => {
                both.timetable.generate_run_id(run_type, run_after, partition_key, random)
            }
            _ => format!("{run_type}__{due}"),
        }
    }
}

impl CustomTimetable {
    fn ask_python(&self) -> TimetableError {
        TimetableError::AskPython { classpath: self.classpath.clone() }
    }

    /// The class' name without its module.
    #[must_use]
    pub fn class_name(&self) -> &str {
        self.classpath.rsplit('.').next().unwrap_or(&self.classpath)
    }
}

/// The id of a run that no timetable words (`airflow/models/dagrun.py: DagRun.generate_run_id`): those that assets,
/// backfills and operators make. `random`, eight letters or digits, tells apart runs without a logical date.
#[must_use]
pub fn generate_run_id(
    run_type: DagRunType,
    logical_date: Option<DateTime<Utc>>,
    run_after: DateTime<Utc>,
    random: &str,
) -> String {
    let due = python::iso_format(run_after);
    if logical_date.is_some() { format!("{run_type}__{due}") } else { format!("{run_type}__{due}_{random}") }
}
