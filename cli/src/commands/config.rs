//! `gust config …`

use std::fmt::Write as _;

use clap::Subcommand;
use gust_config::{Config, Listed, Origin};
use serde_json::{Value, json};

use super::find;
use crate::output::Out;

/// `gust config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// List every setting, its value and where that comes from; secrets are masked
    #[command(after_help = "Examples:
  gust config list
  gust config list --section scheduler
  gust config list --changed")]
    List {
        /// Also settings that have no value
        #[arg(short, long)]
        all: bool,
        /// Only settings that are not at their default
        #[arg(long, conflicts_with = "all")]
        changed: bool,
        /// Only this section
        #[arg(short, long, value_name = "NAME")]
        section: Option<String>,
    },
    /// Print the value of one setting; secrets are masked
    #[command(after_help = "Example: gust config get-value core parallelism")]
    GetValue {
        /// The section
        section: String,
        /// The setting
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Print all settings that there are, as a gust.toml to begin with
    #[command(after_help = "Example: gust config reference > ~/.gust/gust.toml")]
    Reference,
}

impl ConfigCommand {
    /// Whether it looks at this machine's configuration.
    pub fn needs_config(&self) -> bool {
        !matches!(self, Self::Reference)
    }
}

/// Runs a command.
///
/// # Errors
/// What went wrong, for people.
pub fn run(command: &ConfigCommand, config: &Config, out: &mut Out) -> anyhow::Result<()> {
    match command {
        ConfigCommand::List { all, changed, section } => {
            list(config, *all, *changed, section.as_deref(), out)
        }
        ConfigCommand::GetValue { section, key } => get(config, section, key, out),
        ConfigCommand::Reference => reference(out),
    }
}

fn listed_value(listed: &Listed) -> Value {
    json!({ "key": listed.key, "value": listed.value, "source": listed.origin.to_string() })
}

fn section_of(key: &str) -> &str {
    key.split('.').next().unwrap_or(key)
}

fn list(
    config: &Config,
    all: bool,
    changed: bool,
    section: Option<&str>,
    out: &mut Out,
) -> anyhow::Result<()> {
    let listed = config.list();
    if let Some(section) = section
        && !listed.iter().any(|listed| section_of(listed.key) == section)
    {
        return Err(find::missing("section", section, listed.iter().map(|listed| section_of(listed.key))));
    }
    let rows: Vec<Value> = listed
        .iter()
        .filter(|listed| section.is_none_or(|section| section_of(listed.key) == section))
        .filter(|listed| all || !listed.value.is_empty() || listed.origin != Origin::Default)
        .filter(|listed| !changed || listed.origin != Origin::Default)
        .map(listed_value)
        .collect();
    out.rows(&["key", "value", "source"], &rows, "every setting is at its default")?;
    for note in config.notes() {
        eprintln!("note: {note}");
    }
    Ok(())
}

fn get(config: &Config, section: &str, key: &str, out: &mut Out) -> anyhow::Result<()> {
    let name = format!("{section}.{key}");
    let Some(listed) = config.list().iter().find(|listed| listed.key == name) else {
        return Err(find::missing("setting", &name, config.list().iter().map(|listed| listed.key)));
    };
    if out.is_structured() {
        out.value(&listed_value(listed))?;
    } else {
        out.line(&listed.value)?;
    }
    Ok(())
}

/// Prints all settings that there are.
///
/// # Errors
/// When nothing can be printed.
pub fn reference(out: &mut Out) -> anyhow::Result<()> {
    let settings = Config::reference();
    if out.is_structured() {
        out.value(&serde_json::to_value(&settings)?)?;
        return Ok(());
    }
    let mut text = String::from("# Gust's settings and their defaults. {home} stands for gust.home.\n");
    let mut section = "";
    for setting in &settings {
        if section_of(setting.key) != section {
            section = section_of(setting.key);
            let _ = write!(text, "\n[{section}]\n");
        }
        let key = setting.key.split_once('.').map_or(setting.key, |(_, key)| key);
        let _ = writeln!(text, "\n# {}", setting.doc.lines().map(str::trim).collect::<Vec<_>>().join("\n# "));
        let airflow = setting.airflow.map(|name| format!("; Airflow's {name}")).unwrap_or_default();
        let _ = writeln!(text, "# ({}; {}{airflow})", setting.kind, setting.env);
        let _ = match setting.default {
            "" => writeln!(text, "# {key} ="),
            default if default.parse::<f64>().is_ok() || matches!(default, "true" | "false") => {
                writeln!(text, "# {key} = {default}")
            }
            default => writeln!(text, "# {key} = '{default}'"),
        };
    }
    out.raw(&text)?;
    Ok(())
}
