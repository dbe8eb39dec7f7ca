//! Reading a timetable from Airflow's serialized form.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::cron::{CronExpression, CronSchedule};
use crate::interval::{CronDataInterval, DeltaDataInterval};
use crate::simple::Events;
use crate::trigger::{CronPartition, CronTrigger, DeltaTrigger, MultipleCronTrigger, RunImmediately};
use crate::{
    AssetExpression, AssetOrTime, CustomTimetable, Delta, PartitionedAsset, Timetable, TimetableError, Zone,
};

const BUILTINS: &str = "airflow.timetables.";

/// Dispatches on the class path, as `airflow/serialization/decoders.py: decode_timetable`.
pub(crate) fn timetable(value: &Value) -> Result<Timetable, TimetableError> {
    let malformed = |what: &str| TimetableError::Malformed {
        classpath: "?".into(),
        what: format!("{what}, found {value}"),
    };
    let classpath = value
        .get("__type")
        .and_then(Value::as_str)
        .ok_or_else(|| malformed("expected an object with the class path under \"__type\""))?;
    let data =
        value.get("__var").ok_or_else(|| malformed("expected the timetable's data under \"__var\""))?;
    let Some(name) = classpath.strip_prefix(BUILTINS) else {
        return Ok(Timetable::Custom(CustomTimetable { classpath: classpath.into(), data: data.clone() }));
    };
    let empty = Map::new();
    let fields = match data {
        Value::Object(fields) => fields,
        Value::Null => &empty,
        other => {
            let what = format!("expected an object under \"__var\", found {other}");
            return Err(TimetableError::Malformed { classpath: classpath.into(), what });
        }
    };
    let reader = Reader { classpath, fields };
    Ok(match name {
        "simple.NullTimetable" => Timetable::Null,
        "simple.OnceTimetable" => Timetable::Once,
        "simple.ContinuousTimetable" => Timetable::Continuous,
        "simple.PartitionedAtRuntime" => Timetable::PartitionedAtRuntime,
        "simple.AssetTriggeredTimetable" => Timetable::AssetTriggered(reader.assets()?),
        "simple.PartitionedAssetTimetable" => Timetable::PartitionedAsset(reader.partitioned_asset()?),
        "trigger.CronTriggerTimetable" => Timetable::CronTrigger(reader.cron_trigger()?),
        "trigger.MultipleCronTriggerTimetable" => Timetable::MultipleCronTrigger(reader.multiple()?),
        "trigger.DeltaTriggerTimetable" => Timetable::DeltaTrigger(DeltaTrigger {
            delta: reader.schedule_delta()?,
            interval: reader.interval()?,
        }),
        "trigger.CronPartitionTimetable" => Timetable::CronPartition(reader.partition()?),
        "interval.CronDataIntervalTimetable" => {
            let schedule = reader.schedule(reader.text("expression")?)?;
            Timetable::CronDataInterval(CronDataInterval { schedule })
        }
        "interval.DeltaDataIntervalTimetable" => {
            Timetable::DeltaDataInterval(DeltaDataInterval { delta: reader.schedule_delta()? })
        }
        "assets.AssetOrTimeSchedule" => {
            let inner = timetable(reader.required("timetable")?)?;
            if inner.is_asset_triggered() {
                return Err(
                    reader.wrong("asset timetables cannot be nested; give AssetOrTimeSchedule one of time")
                );
            }
            Timetable::AssetOrTime(Box::new(AssetOrTime { assets: reader.assets()?, timetable: inner }))
        }
        "events.EventsTimetable" => Timetable::Events(reader.events()?),
        _ => {
            return Err(TimetableError::UnknownBuiltin {
                classpath: classpath.into(),
                hint: "pin Airflow 3.3.2, or give a timetable class of your own a module outside airflow.timetables"
                    .into(),
            });
        }
    })
}

struct Reader<'a> {
    classpath: &'a str,
    fields: &'a Map<String, Value>,
}

impl<'a> Reader<'a> {
    fn wrong(&self, what: impl Into<String>) -> TimetableError {
        TimetableError::Malformed { classpath: self.classpath.into(), what: what.into() }
    }

    fn required(&self, key: &str) -> Result<&'a Value, TimetableError> {
        self.fields.get(key).ok_or_else(|| self.wrong(format!("{key:?} is missing")))
    }

    fn text(&self, key: &str) -> Result<&'a str, TimetableError> {
        let value = self.required(key)?;
        value.as_str().ok_or_else(|| self.wrong(format!("expected text under {key:?}, found {value}")))
    }

    fn schedule(&self, expression: &str) -> Result<CronSchedule, TimetableError> {
        let zone = Zone::from_serialized(self.required("timezone")?)?;
        Ok(CronSchedule { expression: CronExpression::parse(expression)?, zone })
    }

    fn delta(&self, key: &str) -> Result<Delta, TimetableError> {
        Delta::from_serialized(self.required(key)?).map_err(|what| self.wrong(format!("{key:?}: {what}")))
    }

    fn interval(&self) -> Result<Delta, TimetableError> {
        self.delta("interval")
    }

    fn schedule_delta(&self) -> Result<Delta, TimetableError> {
        let delta = self.delta("delta")?;
        if delta.may_advance() {
            Ok(delta)
        } else {
            Err(self.wrong(format!("schedule interval must be positive, not {}", delta.to_python())))
        }
    }

    fn trigger(&self, expression: &str, interval: Delta) -> Result<CronTrigger, TimetableError> {
        Ok(CronTrigger {
            schedule: self.schedule(expression)?,
            interval,
            run_immediately: RunImmediately::from_serialized(self.fields.get("run_immediately")),
        })
    }

    fn cron_trigger(&self) -> Result<CronTrigger, TimetableError> {
        self.trigger(self.text("expression")?, self.interval()?)
    }

    fn multiple(&self) -> Result<MultipleCronTrigger, TimetableError> {
        let expressions = self.required("expressions")?;
        let wrong = || {
            self.wrong(format!(
                "expected a list of at least one cron expression under \"expressions\", found {expressions}"
            ))
        };
        let list = expressions.as_array().filter(|list| !list.is_empty()).ok_or_else(wrong)?;
        let timetables = list
            .iter()
            .map(|expression| self.trigger(expression.as_str().ok_or_else(wrong)?, self.interval()?))
            .collect::<Result<_, _>>()?;
        Ok(MultipleCronTrigger { timetables })
    }

    fn partition(&self) -> Result<CronPartition, TimetableError> {
        Ok(CronPartition {
            trigger: self.trigger(self.text("expression")?, Delta::Fixed(chrono::Duration::zero()))?,
            // Airflow ignores an offset that is no whole number, with a warning.
            run_offset: self.required("run_offset")?.as_i64().unwrap_or(0),
            key_format: self.text("key_format")?.to_owned(),
        })
    }

    fn assets(&self) -> Result<AssetExpression, TimetableError> {
        AssetExpression::from_serialized(self.required("asset_condition")?)
            .map_err(|what| self.wrong(format!("\"asset_condition\": {what}")))
    }

    fn partitioned_asset(&self) -> Result<PartitionedAsset, TimetableError> {
        let config = self.required("partition_mapper_config")?;
        let wrong = || {
            self.wrong(format!(
                "expected a list of [asset, mapper] under \"partition_mapper_config\", found {config}"
            ))
        };
        let mappers = config
            .as_array()
            .ok_or_else(wrong)?
            .iter()
            .map(|pair| {
                let [asset, mapper] = pair.as_array().map(Vec::as_slice).ok_or_else(wrong)? else {
                    return Err(wrong());
                };
                let asset = AssetExpression::from_serialized(asset)
                    .map_err(|what| self.wrong(format!("\"partition_mapper_config\": {what}")))?;
                Ok((asset, mapper.clone()))
            })
            .collect::<Result<_, _>>()?;
        Ok(PartitionedAsset {
            assets: self.assets()?,
            mappers,
            default_mapper: self.required("default_partition_mapper")?.clone(),
        })
    }

    fn events(&self) -> Result<Events, TimetableError> {
        let listed = self.required("event_dates")?;
        let wrong = |found: &Value| {
            self.wrong(format!(
                "expected a list of ISO 8601 times with an offset under \"event_dates\", found {found}"
            ))
        };
        let dates = listed
            .as_array()
            .ok_or_else(|| wrong(listed))?
            .iter()
            .map(|date| {
                let parsed = date.as_str().and_then(|date| DateTime::parse_from_rfc3339(date).ok());
                parsed.map(|date| date.with_timezone(&Utc)).ok_or_else(|| wrong(date))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let count = format!("{} events", dates.len());
        let text = |key: &str| self.fields.get(key).and_then(Value::as_str).map(str::to_owned);
        // The SDK's own form of this timetable leaves the summary out, and the description where none was given.
        let summary = text("_summary").or_else(|| text("description")).unwrap_or_else(|| count.clone());
        let spoken = match (dates.first(), dates.last()) {
            (Some(first), Some(last)) => {
                format!(
                    "{count} between {} and {}",
                    crate::python::iso_format(*first),
                    crate::python::iso_format(*last)
                )
            }
            _ => "No events".into(),
        };
        Ok(Events {
            restrict_to_events: self
                .fields
                .get("restrict_to_events")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            description: text("description").unwrap_or(spoken),
            summary,
            dates,
        })
    }
}
