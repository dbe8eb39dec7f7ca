//! `gust variables …`

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use gust_config::Config;
use gust_model::{VariableKey, record::VariableRecord};
use gust_ports::{
    MetastoreError,
    metastore::{TxMode, transact},
};
use serde_json::{Map, Value, json};

use super::{all_pages, files, find, open};
use crate::{house::House, output::Out};

/// `gust variables …`
#[derive(Debug, Subcommand)]
pub enum VariablesCommand {
    /// List the Variables' keys
    #[command(after_help = "Examples:
  gust variables list
  gust variables list --show-values")]
    List {
        /// Also their values, in clear
        #[arg(long)]
        show_values: bool,
    },
    /// Print a Variable's value
    #[command(after_help = "Examples:
  gust variables get region
  gust variables get limits --json
  gust variables get absent --default none")]
    Get {
        /// The key
        key: String,
        /// Print this if there is none
        #[arg(short, long, value_name = "VALUE")]
        default: Option<String>,
        /// The value is JSON; print it indented
        #[arg(short, long)]
        json: bool,
    },
    /// Set a Variable
    #[command(after_help = "Examples:
  gust variables set region eu-central-1
  gust variables set limits '{\"rows\": 100}' --json")]
    Set {
        /// The key
        key: String,
        /// The value
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// What it is for [default: as it was]
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// The value is JSON; refuse it otherwise
        #[arg(short, long)]
        json: bool,
    },
    /// Remove a Variable
    Delete {
        /// The key
        key: String,
    },
    /// Set Variables as a JSON file says
    #[command(
        after_help = "The file: {\"region\": \"eu\", \"limits\": {\"rows\": 100}}; values that are no texts are kept as JSON.
A value {\"value\": …, \"description\": …} sets the description as well."
    )]
    Import {
        /// The file; - for the standard input
        file: PathBuf,
        /// What to do about keys that exist
        #[arg(short, long, value_enum, default_value = "overwrite")]
        action_on_existing_key: OnExisting,
    },
    /// Write all Variables to a JSON file, in clear
    Export {
        /// The file; - for the standard output
        file: PathBuf,
    },
}

/// What an import does about a key that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnExisting {
    /// Give it the new value
    Overwrite,
    /// Import nothing at all
    Fail,
    /// Leave it as it is
    Skip,
}

/// Runs a command.
///
/// # Errors
/// What went wrong, for people.
pub async fn run(command: VariablesCommand, config: Config, out: &mut Out) -> anyhow::Result<()> {
    let house = open(config).await?;
    match command {
        VariablesCommand::List { show_values } => list(&house, show_values, out).await,
        VariablesCommand::Get { key, default, json } => get(&house, &key, default, json, out).await,
        VariablesCommand::Set { key, value, description, json } => {
            if json {
                serde_json::from_str::<Value>(&value)
                    .map_err(|error| anyhow::anyhow!("the value is not JSON: {error}"))?;
            }
            put(&house, vec![(key.clone(), value, description)], OnExisting::Overwrite).await?;
            out.say(&format!("set the Variable {key}"))?;
            Ok(())
        }
        VariablesCommand::Delete { key } => delete(&house, &key, out).await,
        VariablesCommand::Import { file, action_on_existing_key } => {
            let variables = files::read_object(&file)?.into_iter().map(imported).collect();
            let count = put(&house, variables, action_on_existing_key).await?;
            out.say(&format!("{count} Variables were imported"))?;
            Ok(())
        }
        VariablesCommand::Export { file } => {
            let mut all = Map::new();
            for variable in records(&house).await? {
                let text = opened(&house, &variable)?;
                // What reads as an object or a list is written as one, as Airflow does.
                let value = match serde_json::from_str(&text) {
                    Ok(value @ (Value::Object(_) | Value::Array(_))) => value,
                    _ => Value::from(text),
                };
                let value = match &variable.description {
                    Some(description) => json!({ "value": value, "description": description }),
                    None => value,
                };
                all.insert(variable.key.to_string(), value);
            }
            files::write_object(&file, all)
        }
    }
}

fn place(key: &VariableKey) -> String {
    format!("variable/{key}/value")
}

fn opened(house: &House, variable: &VariableRecord) -> anyhow::Result<String> {
    Ok(house.cipher.open(&place(&variable.key), &variable.sealed_value)?)
}

async fn records(house: &House) -> anyhow::Result<Vec<VariableRecord>> {
    let mut tx = house.store.begin(TxMode::Read).await?;
    Ok(all_pages!(u32::MAX, |limit, offset| { tx.variables("", limit, offset).await? }))
}

/// A Variable of an import file: a plain value, or one with its description.
fn imported((key, value): (String, Value)) -> (String, String, Option<String>) {
    let (value, description) = match value {
        Value::Object(fields)
            if fields.contains_key("value")
                && fields.keys().all(|name| matches!(name.as_str(), "value" | "description")) =>
        {
            let description = fields.get("description").and_then(Value::as_str).map(str::to_owned);
            (fields.get("value").cloned().unwrap_or_default(), description)
        }
        value => (value, None),
    };
    let text = match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    (key, text, description)
}

async fn list(house: &House, show_values: bool, out: &mut Out) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for variable in records(house).await? {
        let mut row = json!({ "key": variable.key, "description": variable.description });
        if show_values {
            row["val"] = opened(house, &variable)?.into();
        }
        rows.push(row);
    }
    let columns: &[&str] = if show_values { &["key", "val", "description"] } else { &["key", "description"] };
    out.rows(columns, &rows, "no Variables")?;
    Ok(())
}

async fn not_found(house: &House, key: &str) -> anyhow::Result<anyhow::Error> {
    let all = records(house).await?;
    Ok(find::missing("Variable", key, all.iter().map(|variable| variable.key.as_str())))
}

async fn get(
    house: &House,
    key: &str,
    default: Option<String>,
    is_json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    let found = house.store.begin(TxMode::Read).await?.variable(&VariableKey::from(key)).await?;
    let (value, description) = match (found, default) {
        (Some(variable), _) => (opened(house, &variable)?, variable.description),
        (None, Some(default)) => (default, None),
        (None, None) => return Err(not_found(house, key).await?),
    };
    if out.is_structured() {
        out.value(&json!({ "key": key, "value": value, "description": description }))?;
    } else if is_json {
        let value: Value = serde_json::from_str(&value)
            .map_err(|error| anyhow::anyhow!("the value of the Variable {key} is not JSON: {error}"))?;
        out.raw(&format!("{value:#}\n"))?;
    } else {
        out.raw(&format!("{value}\n"))?;
    }
    Ok(())
}

/// Sets Variables in one transaction, all or none, and says how many were set.
async fn put(
    house: &House,
    variables: Vec<(String, String, Option<String>)>,
    on_existing: OnExisting,
) -> anyhow::Result<usize> {
    let mut sealed = Vec::with_capacity(variables.len());
    for (key, value, description) in variables {
        anyhow::ensure!(
            !key.is_empty() && key.chars().count() <= 250,
            "a Variable's key has 1 to 250 characters"
        );
        let key = VariableKey::from(key);
        let sealed_value = house.cipher.seal(&place(&key), &value)?;
        sealed.push(VariableRecord { key, sealed_value, description });
    }
    let outcome = transact(&*house.store, TxMode::Write, move |tx| {
        let sealed = sealed.clone();
        Box::pin(async move {
            let mut count = 0;
            for mut variable in sealed {
                if let Some(before) = tx.variable(&variable.key).await? {
                    match on_existing {
                        OnExisting::Overwrite => {}
                        OnExisting::Skip => continue,
                        OnExisting::Fail => {
                            return Err(MetastoreError::Exists(format!("the Variable {}", variable.key)));
                        }
                    }
                    variable.description = variable.description.or(before.description);
                }
                tx.put_variable(&variable).await?;
                count += 1;
            }
            Ok::<_, MetastoreError>(count)
        })
    })
    .await?;
    Ok(outcome)
}

async fn delete(house: &House, key: &str, out: &mut Out) -> anyhow::Result<()> {
    let doomed = VariableKey::from(key);
    let was_there = transact(&*house.store, TxMode::Write, move |tx| {
        let key = doomed.clone();
        Box::pin(async move { tx.delete_variable(&key).await })
    })
    .await?;
    if !was_there {
        return Err(not_found(house, key).await?);
    }
    out.say(&format!("removed the Variable {key}"))?;
    Ok(())
}
