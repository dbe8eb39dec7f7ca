//! DAG bundles.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Context, Given, Seconds, SettingValue};

const LOCAL: &str = "airflow.dag_processing.bundles.local.LocalDagBundle";

/// A folder of DAG files under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bundle {
    /// The name under which runs remember it.
    pub name: String,
    /// The folder; `core.dags_folder` where there is none.
    pub path: Option<PathBuf>,
    /// How often to look for new files; `dag_processor.refresh_interval` where there is none.
    pub refresh_interval: Option<Seconds>,
}

/// The list of DAG bundles, each with a name of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bundles(pub Vec<Bundle>);

/// A bundle as Airflow writes it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default = "local")]
    classpath: String,
    #[serde(default)]
    kwargs: Kwargs,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kwargs {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_interval: Option<f64>,
}

fn local() -> String {
    LOCAL.to_owned()
}

impl SettingValue for Bundles {
    const KIND: &'static str = "a list of bundles, each with name, classpath and kwargs";

    fn parse(given: &Given<'_>, context: &Context<'_>) -> Result<Self, String> {
        let written: Result<Vec<Written>, _> = match given {
            Given::Toml(Value::String(text)) => serde_json::from_str(text),
            Given::Toml(value) => Vec::deserialize(*value),
            Given::Text(text) => serde_json::from_str(text),
        };
        let written = written.map_err(|error| format!("expected {}: {error}", Self::KIND))?;
        let mut bundles: Vec<Bundle> = Vec::with_capacity(written.len());
        for bundle in written {
            if bundles.iter().any(|other| other.name == bundle.name) {
                return Err(format!("expected each name once, and {:?} is there twice", bundle.name));
            }
            bundles.push(read(bundle, context)?);
        }
        Ok(Self(bundles))
    }

    fn text(&self) -> String {
        let written: Vec<Written> = self.0.iter().map(write).collect();
        serde_json::to_string(&written).unwrap_or_default()
    }
}

fn read(Written { name, classpath, kwargs }: Written, context: &Context<'_>) -> Result<Bundle, String> {
    if name.is_empty() {
        return Err("expected a name for each bundle, and one is empty".to_owned());
    }
    if classpath != LOCAL {
        return Err(format!(
            "bundle {name:?} is of class {classpath}; Gust reads folders here ({LOCAL}) and takes everything else \
             from `gust bundle push`"
        ));
    }
    let path = kwargs.path.map(|path| context.path(&path)).transpose();
    let path = path.map_err(|reason| format!("the path of bundle {name:?}: {reason}"))?;
    let refresh_interval = kwargs.refresh_interval.map(Duration::try_from_secs_f64).transpose();
    let refresh_interval = refresh_interval
        .map_err(|_| {
            format!("the refresh_interval of bundle {name:?}: expected a number of seconds, 0 or more")
        })?
        .map(Seconds);
    Ok(Bundle { name, path, refresh_interval })
}

fn write(bundle: &Bundle) -> Written {
    let kwargs = Kwargs {
        path: bundle.path.as_ref().map(|path| path.display().to_string()),
        refresh_interval: bundle.refresh_interval.map(|seconds| seconds.as_secs_f64()),
    };
    Written { name: bundle.name.clone(), classpath: local(), kwargs }
}
