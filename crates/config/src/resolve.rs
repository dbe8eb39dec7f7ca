//! Picks the strongest layer's value for each setting.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::children;
use crate::error::ConfigError;
use crate::file::{self, FileValue};
use crate::nearest;
use crate::settings::{Setting, find, settings};
use crate::sources::{Origin, Sources};
use crate::values::{Context, Given, SettingValue, expand};

/// A setting with the value that won.
pub(crate) struct Resolved {
    pub(crate) setting: &'static Setting,
    /// The value as text, secrets in clear.
    pub(crate) text: String,
    /// The value as it may be shown.
    pub(crate) shown: String,
    pub(crate) origin: Origin,
}

pub(crate) struct Resolver<'a> {
    sources: &'a Sources,
    file: BTreeMap<&'static str, FileValue>,
    file_path: PathBuf,
    /// Stands for `{home}` in defaults; known once `gust.home`, the first setting, is read.
    home: String,
    pub(crate) resolved: Vec<Resolved>,
    pub(crate) problems: Vec<ConfigError>,
    pub(crate) notes: Vec<String>,
}

impl<'a> Resolver<'a> {
    /// Reads the file and finds every name that nobody knows.
    pub(crate) fn new(sources: &'a Sources) -> Self {
        let mut problems = Vec::new();
        let (file_path, file) = sources.file.as_ref().map_or_else(Default::default, |(path, text)| {
            (path.clone(), file::read(path, text, &mut problems))
        });
        problems.extend(sources.env.keys().filter_map(|name| unknown_variable(name)));
        problems.extend(sources.flags.iter().filter_map(|flag| {
            let (section, key) = flag.key.split_once('.').unwrap_or(("", &flag.key));
            if find(section, key).is_some() {
                return None;
            }
            let nearest = nearest::setting(section, key).map(|setting| setting.name.to_owned());
            Some(ConfigError::Unknown {
                origin: Origin::Flag(flag.flag.clone()),
                name: flag.key.clone(),
                nearest,
            })
        }));
        let notes = notes(&sources.env);
        Self { sources, file, file_path, home: String::new(), resolved: Vec::new(), problems, notes }
    }

    /// The value of `setting`, or `None` after noting what is wrong with it.
    pub(crate) fn take<T: SettingValue>(&mut self, setting: &'static Setting) -> Option<T> {
        let (value, origin) = self.strongest::<T>(setting)?;
        let text = value.text();
        let shown = if setting.secret { value.masked() } else { text.clone() };
        if setting.name == "gust.home" {
            self.home.clone_from(&text);
        }
        self.resolved.push(Resolved { setting, text, shown, origin });
        Some(value)
    }

    fn strongest<T: SettingValue>(&mut self, setting: &'static Setting) -> Option<(T, Origin)> {
        let problems_before = self.problems.len();
        // Weakest first, so that the last one that is right is the one that holds.
        let mut winner = None;
        if let Some(FileValue { value, line }) = self.file.remove(setting.name) {
            let origin = Origin::File { path: self.file_path.clone(), line };
            winner = self.parse::<T>(setting, &Given::Toml(&value), origin).or(winner);
        }
        let variable = setting.variable();
        if let Some(text) = self.sources.env.get(&variable) {
            winner = self.parse::<T>(setting, &Given::Text(text), Origin::Env(variable)).or(winner);
        }
        for flag in self.sources.flags.iter().filter(|flag| flag.key == setting.name) {
            let origin = Origin::Flag(flag.flag.clone());
            winner = self.parse::<T>(setting, &Given::Text(&flag.value), origin).or(winner);
        }
        if winner.is_none() && self.problems.len() == problems_before {
            winner = self.inherited::<T>(setting);
        }
        if winner.is_none() && self.problems.len() == problems_before {
            let default = setting.default.replace("{home}", &self.home);
            // A default below a home folder that could not be read has no meaning and no fault of its own.
            if default != setting.default && self.home.is_empty() {
                return None;
            }
            winner = self.parse::<T>(setting, &Given::Text(&default), Origin::Default);
        }
        winner
    }

    /// The value that Airflow's environment gives, if any.
    fn inherited<T: SettingValue>(&mut self, setting: &'static Setting) -> Option<(T, Origin)> {
        let found = self.airflow_text(setting).and_then(|found| {
            let Some((text, variable)) = found else { return Ok(None) };
            let origin = Origin::Env(variable);
            let translated = setting.translate.map_or_else(|| Ok(text.clone()), |translate| translate(&text));
            match translated {
                Ok(text) => Ok(Some((text, origin))),
                Err(reason) => Err(malformed(setting, &Given::Text(&text), origin, reason)),
            }
        });
        match found {
            Ok(found) => found.and_then(|(text, origin)| self.parse(setting, &Given::Text(&text), origin)),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// The text under the Airflow names that the setting follows, the current name before the deprecated ones, with
    /// the variable that it is from. A secret may also be what a command prints.
    fn airflow_text(&self, setting: &Setting) -> Result<Option<(String, String)>, ConfigError> {
        let env = &self.sources.env;
        for variable in setting.airflow.iter().map(|name| airflow_variable(name)) {
            if let Some(text) = env.get(&variable) {
                return Ok(Some((expand(text, env), variable)));
            }
            if !setting.secret {
                continue;
            }
            let (by_command, by_backend) = (format!("{variable}_CMD"), format!("{variable}_SECRET"));
            if let Some(line) = env.get(&by_command) {
                return match (self.sources.run_command)(line) {
                    Ok(text) => Ok(Some((text, by_command))),
                    Err(reason) => {
                        Err(ConfigError::Command { variable: by_command, key: setting.name, reason })
                    }
                };
            }
            if env.contains_key(&by_backend) {
                return Err(ConfigError::SecretsBackend { variable: by_backend, instead: variable });
            }
        }
        Ok(None)
    }

    fn parse<T: SettingValue>(
        &mut self,
        setting: &Setting,
        given: &Given<'_>,
        origin: Origin,
    ) -> Option<(T, Origin)> {
        // What the file names is relative to the file; what a process is told, to where it stands.
        let base = match origin {
            Origin::File { .. } => self.file_path.parent().unwrap_or(Path::new("")),
            _ => Path::new(""),
        };
        let parsed =
            T::parse(given, &Context { env: &self.sources.env, base }).and_then(|value| {
                match setting.least {
                    Some(least) if value.is_below(least) => Err(format!("expected at least {least}")),
                    _ if setting.whole && value.text().contains('.') => {
                        Err("expected whole seconds".to_owned())
                    }
                    _ => Ok(value),
                }
            });
        match parsed {
            Ok(value) => Some((value, origin)),
            Err(reason) => {
                self.problems.push(malformed(setting, given, origin, reason));
                None
            }
        }
    }
}

fn malformed(setting: &Setting, given: &Given<'_>, origin: Origin, reason: String) -> ConfigError {
    let value =
        if setting.secret { "what is given (not shown, it is a secret)".to_owned() } else { given.quoted() };
    ConfigError::Malformed { origin, key: setting.name, value, reason }
}

/// `core.parallelism` → `AIRFLOW__CORE__PARALLELISM`.
pub(crate) fn airflow_variable(name: &str) -> String {
    format!("AIRFLOW__{}", name.to_uppercase().replacen('.', "__", 1))
}

fn unknown_variable(variable: &str) -> Option<ConfigError> {
    let rest = variable.strip_prefix("GUST__")?;
    let (section, key) = rest.split_once("__").unwrap_or(("", rest));
    let nearest = nearest::setting(section, key).map(Setting::variable);
    if nearest.as_deref() == Some(variable) {
        return None;
    }
    Some(ConfigError::Unknown {
        origin: Origin::Env(variable.to_owned()),
        name: "setting of this name".to_owned(),
        nearest,
    })
}

/// One line for each Airflow variable that no setting follows.
fn notes(env: &BTreeMap<String, String>) -> Vec<String> {
    let followed: BTreeSet<String> = settings()
        .flat_map(|setting| setting.airflow.iter().map(move |name| (setting, airflow_variable(name))))
        .flat_map(|(setting, variable)| {
            let for_secrets = [format!("{variable}_CMD"), format!("{variable}_SECRET")];
            std::iter::once(variable).chain(for_secrets.into_iter().filter(|_| setting.secret))
        })
        .collect();
    env.keys()
        .filter(|name| name.starts_with("AIRFLOW__") && !followed.contains(*name))
        .map(|name| {
            let fate = if children::withheld_from_children(name) {
                "DAG code does not get it"
            } else {
                "it is handed on to DAG code"
            };
            format!("{name} is set; Gust has no such setting ({fate})")
        })
        .collect()
}
