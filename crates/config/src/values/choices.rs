//! Settings with a few named values.

use serde::Serialize;

use super::{Context, Given, SettingValue};

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident: $kind:literal {
        $($(#[$choice_doc:meta])* $choice:ident = $text:literal,)+
    })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        pub enum $name {
            $($(#[$choice_doc])* #[serde(rename = $text)] $choice,)+
        }

        impl SettingValue for $name {
            const KIND: &'static str = $kind;

            fn parse(given: &Given<'_>, _: &Context<'_>) -> Result<Self, String> {
                let text = match given {
                    Given::Text(text) => Some(*text),
                    Given::Toml(value) => value.as_str(),
                };
                [$(($text, Self::$choice)),+]
                    .into_iter()
                    .find(|(name, _)| text.is_some_and(|text| text.trim().eq_ignore_ascii_case(name)))
                    .map(|(_, choice)| choice)
                    .ok_or_else(|| given.mismatch(Self::KIND))
            }

            fn text(&self) -> String {
                match self { $(Self::$choice => $text,)+ }.to_owned()
            }
        }
    )+};
}

choices! {
    /// How a task's priority weight counts its relatives.
    WeightRule: "downstream, upstream or absolute" {
        /// With all tasks after it.
        Downstream = "downstream",
        /// With all tasks before it.
        Upstream = "upstream",
        /// Not at all.
        Absolute = "absolute",
    }

    /// The syntax of `.airflowignore` files.
    IgnoreSyntax: "glob or regexp" {
        /// As in `.gitignore`.
        Glob = "glob",
        /// A regular expression a line.
        Regexp = "regexp",
    }

    /// Whether connections can be tried out over API and pages.
    TestConnection: "Disabled, Enabled or Hidden" {
        /// Refused, and the button is greyed out.
        Disabled = "Disabled",
        /// Allowed.
        Enabled = "Enabled",
        /// Refused, and there is no button.
        Hidden = "Hidden",
    }

    /// The least serious lines that a process writes to its log.
    LogLevel: "error, warn, info, debug or trace" {
        /// What failed.
        Error = "error",
        /// What may fail later.
        Warn = "warn",
        /// What happens.
        Info = "info",
        /// Why it happens.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }

    /// How a process writes its own log.
    LogFormat: "text or json" {
        /// Lines to read.
        Text = "text",
        /// A JSON object a line.
        Json = "json",
    }
}

/// Airflow's `logging.json_logs` as a [`LogFormat`].
pub(crate) fn format_of_json_logs(text: &str) -> Result<String, String> {
    let format = match text.trim().to_lowercase().as_str() {
        "t" | "true" | "1" => "json",
        "f" | "false" | "0" => "text",
        _ => return Err("expected true or false".to_owned()),
    };
    Ok(format.to_owned())
}

/// Python's level names as a [`LogLevel`].
pub(crate) fn level_of_python(text: &str) -> Result<String, String> {
    let level = match text.trim().to_uppercase().as_str() {
        "CRITICAL" | "FATAL" | "ERROR" => "error",
        "WARNING" | "WARN" => "warn",
        "INFO" => "info",
        "DEBUG" => "debug",
        "NOTSET" => "trace",
        _ => return Err("expected CRITICAL, ERROR, WARNING, INFO or DEBUG".to_owned()),
    };
    Ok(level.to_owned())
}
