//! Defaults against the facts of Airflow 3.3.2's `config_templates/config.yml`: for each key of the sections that Gust
//! follows, its default.

use std::collections::BTreeMap;

use gust_config::Config;

use crate::{from_env, listed};

const FACTS: &str = include_str!("../fixtures/airflow-3.3.2-defaults.json");

/// Where Gust's default is another, and why.
const DIFFERENT: [(&str, &str); 13] = [
    ("core.dags_folder", "stands below Gust's home"),
    ("core.plugins_folder", "stands below Gust's home"),
    ("core.fernet_key", "made by Gust where it is unset, as Airflow makes it for its file"),
    ("api.secret_key", "made by Gust where it is unset, as Airflow makes it for its file"),
    ("api_auth.jwt_secret", "made by Gust where it is unset, as Airflow makes it for its file"),
    ("metastore.url", "stands below Gust's home"),
    ("logging.base_log_folder", "stands below Gust's home"),
    ("logging.level", "Python's name for it"),
    ("logging.format", "a boolean in Airflow"),
    ("dag_processor.dag_bundle_config_list", "Airflow's is wrapped in template braces"),
    ("api.host", "servers are reachable from elsewhere only where somebody says so"),
    ("secrets.backend", "unset is empty text in Airflow"),
    ("secrets.backend_kwargs", "unset is empty text in Airflow"),
];

#[test]
fn defaults_are_airflows() {
    let facts: BTreeMap<String, Option<String>> = serde_json::from_str(FACTS).unwrap();
    let ours = from_env(&[]).unwrap();
    for setting in Config::reference() {
        let Some(name) = setting.airflow else { continue };
        let fact = facts.get(name).unwrap_or_else(|| panic!("Airflow 3.3.2 has no {name}"));
        if DIFFERENT.iter().any(|(key, _)| *key == setting.key) {
            continue;
        }
        let default = fact.clone().unwrap_or_default();
        // Airflow's text is read by Gust's reader, so that 30.0 is 30 and True is true.
        let theirs = from_env(&[(&setting.env, &default)]).unwrap();
        let value = |config| listed(config, setting.key).split("  ").next().unwrap_or_default().to_owned();
        assert_eq!(value(&ours), value(&theirs), "{} follows {name}", setting.key);
    }
}

#[test]
fn differences_are_of_settings_that_follow_airflow() {
    let reference = Config::reference();
    for (key, _) in DIFFERENT {
        assert!(reference.iter().any(|setting| setting.key == key && setting.airflow.is_some()), "{key}");
    }
}

#[test]
fn no_two_settings_follow_the_same_name() {
    let mut names: Vec<&str> =
        Config::reference().into_iter().filter_map(|setting| setting.airflow).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}
