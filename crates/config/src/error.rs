//! What can be wrong with a configuration, worded for whoever has to mend it.

use std::fmt;

use crate::sources::Origin;

/// One thing that is wrong, with the place where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A setting, section or variable which does not exist.
    #[error("{origin}: there is no {name}{}", hint(nearest.as_deref()))]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// What there is not, in the writing of its place: `setting core.x`, `section [x]`.
        name: String,
        /// The nearest name that does exist, in the same writing.
        nearest: Option<String>,
    },
    /// A value which its setting does not accept.
    #[error("{origin}: {key} cannot be {value}: {reason}")]
    Malformed {
        /// Where the value stands.
        origin: Origin,
        /// The setting, `section.key`.
        key: &'static str,
        /// The value in quotes, or words in its stead where it is secret.
        value: String,
        /// What was expected.
        reason: String,
    },
    /// Values which are each right but do not fit together.
    #[error("{origin}: {key} does not fit: {reason}")]
    Conflict {
        /// Where the value stands which is to be changed.
        origin: Origin,
        /// The setting, `section.key`.
        key: &'static str,
        /// What it collides with and what would be right.
        reason: String,
    },
    /// `gust.toml` is not TOML at this place.
    #[error("{place}: not valid TOML: {message}")]
    Syntax {
        /// `path:line:column`.
        place: String,
        /// What the parser says.
        message: String,
    },
    /// Airflow's `…_SECRET`, which names a value in a secrets backend.
    #[error(
        "{variable}: not supported, because Gust starts before any secrets backend does; set {instead} or \
         {instead}_CMD"
    )]
    SecretsBackend {
        /// The variable.
        variable: String,
        /// The variable to be set in its stead.
        instead: String,
    },
    /// A `…_CMD` whose command failed.
    #[error("{variable}: the command for {key} failed: {reason}")]
    Command {
        /// The variable.
        variable: String,
        /// The setting, `section.key`.
        key: &'static str,
        /// Why it failed.
        reason: String,
    },
    /// A configuration file that cannot be read.
    #[error("{path}: cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// A variable meant for Gust or Airflow whose value is not UTF-8.
    #[error("{variable}: its value is not UTF-8 text")]
    NotUtf8 {
        /// The variable.
        variable: String,
    },
}

/// Everything that is wrong with a configuration, in one go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(out, "the configuration is wrong: {one}"),
            many => {
                write!(out, "the configuration is wrong in {} places:", many.len())?;
                many.iter().try_for_each(|problem| write!(out, "\n  {problem}"))
            }
        }
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(problem: ConfigError) -> Self {
        Self(vec![problem])
    }
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}
