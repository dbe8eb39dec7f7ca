//! What a configuration is read as, and what is said where it is wrong.
#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its input has to stop")]

mod airflow;
mod children;
mod errors;
mod layers;
mod values;

use std::path::PathBuf;

use gust_config::{Config, ConfigErrors, Flag, Sources};

/// Sources with `/home/ann` as the user's home.
fn sources(env: &[(&str, &str)], file: Option<&str>, flags: &[(&str, &str, &str)]) -> Sources {
    Sources {
        file: file.map(|text| (PathBuf::from("/etc/gust/gust.toml"), text.to_owned())),
        env: std::iter::once(&("HOME", "/home/ann"))
            .chain(env)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        flags: flags
            .iter()
            .map(|(flag, key, value)| Flag {
                flag: (*flag).to_owned(),
                key: (*key).to_owned(),
                value: (*value).to_owned(),
            })
            .collect(),
        ..Sources::default()
    }
}

fn from_env(env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::load(&sources(env, None, &[]))
}

fn from_file(text: &str) -> Result<Config, ConfigErrors> {
    Config::load(&sources(&[], Some(text), &[]))
}

/// `value  origin` of a setting.
fn listed(config: &Config, key: &str) -> String {
    let line = config.list().iter().find(|line| line.key == key).unwrap();
    format!("{}  {}", line.value, line.origin)
}
