//! A [`Config`] as a whole: how it is loaded, what must fit together, and what is derived from it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::children;
use crate::error::{ConfigError, ConfigErrors};
use crate::resolve::{Resolved, Resolver};
use crate::settings::{Config, settings};
use crate::sources::{Origin, Sources};
use crate::values::{Bundle, SettingValue};

/// What a [`Config`] remembers besides the values; out of `Debug`, since it holds secrets in clear.
#[derive(Clone, Default)]
pub(crate) struct Provenance {
    listed: Vec<Listed>,
    notes: Vec<String>,
    child_env: BTreeMap<String, String>,
}

impl fmt::Debug for Provenance {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Provenance").finish_non_exhaustive()
    }
}

/// A line of `gust config list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// `section.key`.
    pub key: &'static str,
    /// The value, with secrets masked; empty where it is unset.
    pub value: String,
    /// Where the value stands.
    pub origin: Origin,
}

/// A line of the reference of all settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reference {
    /// `section.key`.
    pub key: &'static str,
    /// What values it takes.
    pub kind: String,
    /// Its default, where `{home}` stands for `gust.home`; empty for unset.
    pub default: &'static str,
    /// Its environment variable.
    pub env: String,
    /// The Airflow setting that it follows, `section.key`.
    pub airflow: Option<&'static str>,
    /// Whether its value is shown masked.
    pub secret: bool,
    /// What it means.
    pub doc: &'static str,
}

/// The times of a try's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// How long a lease holds after it was taken or renewed.
    pub duration: Duration,
    /// How often a worker renews it; at most a third of the duration.
    pub renew_every: Duration,
}

impl Config {
    /// Reads all layers.
    ///
    /// # Errors
    /// All that is wrong in any of them, at once.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut resolver = Resolver::new(sources);
        let config = Self::read(&mut resolver);
        let Resolver { resolved, mut problems, notes, .. } = resolver;
        if let Some(config) = &config {
            config.check(&resolved, &mut problems);
        }
        match config {
            Some(mut config) if problems.is_empty() => {
                let child_env = children::environment(&sources.env, &resolved);
                let listed = resolved
                    .into_iter()
                    .map(|Resolved { setting, shown, origin, .. }| Listed {
                        key: setting.name,
                        value: shown,
                        origin,
                    })
                    .collect();
                config.provenance = Provenance { listed, notes, child_env };
                Ok(config)
            }
            _ => Err(ConfigErrors(problems)),
        }
    }

    /// Values which are each right but do not fit together.
    fn check(&self, resolved: &[Resolved], problems: &mut Vec<ConfigError>) {
        let mut conflict = |key: &'static str, reason: String| {
            let found = resolved.iter().find(|value| value.setting.name == key);
            let origin = found.map_or(Origin::Default, |value| value.origin.clone());
            problems.push(ConfigError::Conflict { origin, key, reason });
        };
        let (heartbeat, timeout) =
            (self.scheduler.task_instance_heartbeat_sec, self.scheduler.task_instance_heartbeat_timeout);
        if *heartbeat * 3 > *timeout {
            conflict(
                "scheduler.task_instance_heartbeat_sec",
                format!(
                    "{} is more than a third of scheduler.task_instance_heartbeat_timeout ({}), so that two lost \
                     heartbeats would end a try that is alive",
                    heartbeat.text(),
                    timeout.text()
                ),
            );
        }
        let (least, most) = (self.worker.log_flush_min_s, self.worker.log_flush_max_s);
        if least > most {
            let reason = format!("{} is more than worker.log_flush_max_s ({})", least.text(), most.text());
            conflict("worker.log_flush_min_s", reason);
        }
        if self.logging.remote_logging {
            match self.logging.remote_base_log_folder.as_deref() {
                None => conflict(
                    "logging.remote_logging",
                    "it needs logging.remote_base_log_folder, such as s3://bucket/logs".to_owned(),
                ),
                Some(folder) if !folder.starts_with("s3://") => conflict(
                    "logging.remote_base_log_folder",
                    format!(
                        "{folder:?} is not on S3, the one remote store of logs; expected s3://bucket/prefix"
                    ),
                ),
                Some(_) => {}
            }
        }
    }

    /// Every setting with its value and where that stands, secrets masked, in the order of the table.
    #[must_use]
    pub fn list(&self) -> &[Listed] {
        &self.provenance.listed
    }

    /// What is not wrong but worth a line at start: Airflow variables that Gust has no setting for.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.provenance.notes
    }

    /// The `AIRFLOW__` variables for processes that run user code: all that were inherited but those that carry
    /// credentials of the control plane (see [`crate::withheld_from_children`]), and over them the settings which the
    /// Python side reads as well, whatever layer they come from.
    #[must_use]
    pub fn child_env(&self) -> &BTreeMap<String, String> {
        &self.provenance.child_env
    }

    /// The times of a try's lease. As in Airflow a try is given up after
    /// `scheduler.task_instance_heartbeat_timeout`, and its worker reports every `workers.min_heartbeat_interval`
    /// (`airflow/sdk/execution_time/supervisor.py`) unless `scheduler.task_instance_heartbeat_sec` says otherwise.
    #[must_use]
    pub fn lease(&self) -> Lease {
        let duration = *self.scheduler.task_instance_heartbeat_timeout;
        let own = *self.scheduler.task_instance_heartbeat_sec;
        let renew_every = if own.is_zero() { *self.workers.min_heartbeat_interval } else { own };
        Lease { duration, renew_every: renew_every.min(duration / 3) }
    }

    /// The bundles with their folders and intervals filled in.
    #[must_use]
    pub fn bundles(&self) -> Vec<(String, PathBuf, Duration)> {
        let fill = |bundle: &Bundle| {
            let path = bundle.path.clone().unwrap_or_else(|| self.core.dags_folder.clone());
            let interval = bundle.refresh_interval.unwrap_or(self.dag_processor.refresh_interval);
            (bundle.name.clone(), path, *interval)
        };
        self.dag_processor.dag_bundle_config_list.0.iter().map(fill).collect()
    }

    /// All settings that there are.
    #[must_use]
    pub fn reference() -> Vec<Reference> {
        settings()
            .map(|setting| Reference {
                key: setting.name,
                kind: match setting.least {
                    Some(least) => {
                        format!("{}, at least {least}", setting.kind.trim_end_matches(", 0 or more"))
                    }
                    None => setting.kind.to_owned(),
                },
                default: setting.default,
                env: setting.variable(),
                airflow: setting.airflow.first().copied(),
                secret: setting.secret,
                doc: setting.doc.trim(),
            })
            .collect()
    }
}
