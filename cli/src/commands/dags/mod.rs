//! `gust dags …`
#![expect(clippy::doc_markdown, reason = "what is written here is shown as plain text by --help")]

mod listing;
mod show;
mod test;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gust_config::Config;
use gust_model::{DagId, DagRunState, RunId, TriggeredBy};
use gust_operations::TriggerRequest;
use gust_ports::metastore::TxMode;
use serde_json::{Value, json};

use super::{UsageError, all_pages, confirm::confirm, files, find, moment, open, ports};
use crate::{
    house::House,
    output::{Out, row},
};
pub use show::task_value;
pub use test::TestArgs;

/// `gust dags …`
#[derive(Debug, Subcommand)]
pub enum DagsCommand {
    /// List the DAGs
    #[command(after_help = "Examples:
  gust dags list
  gust dags list --tags etl --paused
  gust dags list --columns dag_id,owners -o plain
  gust dags list -o json | jq -r '.[].dag_id'")]
    List(listing::ListArgs),
    /// Show a DAG: its settings and its tasks as a tree, each with what it waits for
    #[command(visible_alias = "details", after_help = "Example: gust dags show hello")]
    Show {
        /// The DAG
        dag_id: String,
    },
    /// Make a run of a DAG
    #[command(after_help = "Examples:
  gust dags trigger hello
  gust dags trigger hello --conf '{\"name\": \"Ada\"}'
  gust dags trigger hello --conf @params.json --run-id my-run
  gust dags trigger hello --logical-date 2026-01-31")]
    Trigger(TriggerArgs),
    /// Stop making runs and starting tasks of a DAG; what runs goes on
    #[command(after_help = "Example: gust dags pause hello")]
    Pause(PauseArgs),
    /// Let a paused DAG go on
    #[command(after_help = "Example: gust dags unpause hello")]
    Unpause(PauseArgs),
    /// List the runs of a DAG, the newest first
    #[command(after_help = "Examples:
  gust dags list-runs hello --limit 5
  gust dags list-runs hello --state failed --start-date 2026-01-01")]
    ListRuns(listing::ListRunsArgs),
    /// Print the state of a run, and its conf if it has one
    #[command(after_help = "Examples:
  gust dags state hello manual__2026-01-31T06:30:00+00:00
  gust dags state hello 2026-01-31")]
    State {
        /// The DAG
        dag_id: String,
        /// The run's id or logical date
        #[arg(value_name = "RUN_ID|LOGICAL_DATE")]
        run: String,
    },
    /// Run a DAG once, here and now, and print its states and logs
    ///
    /// Nothing of it is kept: it has a metastore, a scheduler and a worker of its own.
    #[command(after_help = "Examples:
  gust dags test hello
  gust dags test hello --dags ./dags --conf '{\"name\": \"Ada\"}'")]
    Test(TestArgs),
    /// List the files that could not be read, and why
    #[command(after_help = "Example: gust dags list-import-errors")]
    ListImportErrors(listing::ImportErrorArgs),
    /// Remove a DAG with its runs and all that hangs on them
    ///
    /// While its file is there, the DAG comes back without its past.
    #[command(after_help = "Example: gust dags delete old_dag --yes")]
    Delete {
        /// The DAG
        dag_id: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// `gust dags trigger`.
#[derive(Debug, Args)]
pub struct TriggerArgs {
    /// The DAG
    dag_id: String,
    /// The run's parameters: a JSON object, or @FILE with one
    #[arg(short, long, value_name = "JSON")]
    conf: Option<String>,
    /// The run's id [default: made from the moment]
    #[arg(short, long, value_name = "RUN_ID")]
    run_id: Option<String>,
    /// The date that the run stands for [default: none]
    #[arg(short, long, visible_alias = "exec-date", value_name = "DATE")]
    logical_date: Option<String>,
    /// Do not start before this [default: at once]
    #[arg(long, value_name = "DATE")]
    run_after: Option<String>,
    /// The partition of its assets that the run stands for
    #[arg(long, value_name = "KEY")]
    partition_key: Option<String>,
    /// A note for the run
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// `gust dags pause` and `unpause`.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// The DAG
    dag_id: String,
    /// DAG_ID is a regular expression, and all DAGs that it matches are meant
    #[arg(long)]
    treat_dag_id_as_regex: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Runs a command.
///
/// # Errors
/// What went wrong, for people.
pub async fn run(command: DagsCommand, config: Config, out: &mut Out) -> anyhow::Result<()> {
    if let DagsCommand::Test(args) = command {
        return test::run(args, config, out).await;
    }
    let house = open(config).await?;
    match command {
        DagsCommand::List(args) => listing::dags(&house, args, out).await,
        DagsCommand::Show { dag_id } => show::run(&house, &dag_id, out).await,
        DagsCommand::Trigger(args) => trigger(&house, args, out).await,
        DagsCommand::Pause(args) => set_paused(&house, args, true, out).await,
        DagsCommand::Unpause(args) => set_paused(&house, args, false, out).await,
        DagsCommand::ListRuns(args) => listing::runs(&house, args, out).await,
        DagsCommand::State { dag_id, run } => state(&house, &dag_id, &run, out).await,
        DagsCommand::ListImportErrors(args) => listing::import_errors(&house, args, out).await,
        DagsCommand::Delete { dag_id, yes } => delete(&house, &dag_id, yes, out).await,
        DagsCommand::Test(_) => Ok(()),
    }
}

/// Reads `--conf`.
///
/// # Errors
/// [`UsageError`] if it is no JSON object.
fn conf(text: Option<&str>) -> anyhow::Result<Value> {
    let Some(text) = text else { return Ok(Value::Null) };
    let text = match text.strip_prefix('@') {
        Some(path) => files::read(&PathBuf::from(path))?,
        None => text.to_owned(),
    };
    match serde_json::from_str(&text) {
        Ok(value @ (Value::Object(_) | Value::Null)) => Ok(value),
        Ok(other) => Err(UsageError(format!("--conf: expected a JSON object, got {other}")).into()),
        Err(error) => {
            Err(UsageError(format!("--conf: not JSON: {error}; expected an object, as '{{\"key\": 1}}'"))
                .into())
        }
    }
}

async fn trigger(house: &House, args: TriggerArgs, out: &mut Out) -> anyhow::Result<()> {
    let dag_id = find::dag(&mut *house.store.begin(TxMode::Read).await?, &args.dag_id).await?.dag_id;
    let request = TriggerRequest {
        run_id: args.run_id.map(RunId::from),
        logical_date: moment::option("--logical-date", args.logical_date.as_deref(), &house.config)?,
        run_after: moment::option("--run-after", args.run_after.as_deref(), &house.config)?,
        conf: conf(args.conf.as_deref())?,
        note: args.note,
        partition_key: args.partition_key,
        triggering_user: std::env::var("USER").ok().filter(|user| !user.is_empty()),
        ..TriggerRequest::new(dag_id, TriggeredBy::Cli)
    };
    let run = gust_operations::trigger_dag_run(ports(house), request).await?;
    let columns = ["dag_id", "run_id", "state", "run_type", "logical_date", "run_after", "conf"];
    if out.is_structured() {
        out.value(&row(&run)?)?;
    } else {
        out.rows(&columns, &[row(&run)?], "")?;
    }
    Ok(())
}

async fn set_paused(house: &House, args: PauseArgs, paused: bool, out: &mut Out) -> anyhow::Result<()> {
    let chosen = {
        let mut tx = house.store.begin(TxMode::Read).await?;
        if args.treat_dag_id_as_regex {
            let pattern = regex::Regex::new(&args.dag_id).map_err(|error| UsageError(error.to_string()))?;
            let filter = gust_ports::metastore::DagFilter { is_stale: Some(false), ..Default::default() };
            let all = all_pages!(u32::MAX, |limit, offset| {
                tx.dags(&filter, &gust_ports::metastore::Page { limit, offset, sort: Vec::new() }).await?
            });
            let found: Vec<_> = all.into_iter().filter(|dag| pattern.is_match(dag.dag_id.as_str())).collect();
            anyhow::ensure!(!found.is_empty(), "no DAG's id matches {}", args.dag_id);
            found
        } else {
            vec![find::dag(&mut *tx, &args.dag_id).await?]
        }
    };
    let verb = if paused { "Pause" } else { "Unpause" };
    if chosen.len() > 1 && !confirm(&format!("{verb} {} DAGs?", chosen.len()), args.yes)? {
        anyhow::bail!("nothing was changed");
    }
    let mut rows = Vec::new();
    for dag in chosen {
        if dag.is_paused != paused {
            gust_operations::set_dag_paused(ports(house), dag.dag_id.clone(), paused).await?;
        }
        rows.push(json!({ "dag_id": dag.dag_id, "is_paused": paused, "was_paused": dag.is_paused }));
    }
    out.rows(&["dag_id", "is_paused", "was_paused"], &rows, "")?;
    Ok(())
}

async fn state(house: &House, dag_id: &str, written: &str, out: &mut Out) -> anyhow::Result<()> {
    let mut tx = house.store.begin(TxMode::Read).await?;
    let run = find::run(&mut *tx, &house.config, dag_id, written).await?;
    if out.is_structured() {
        out.value(&row(&run)?)?;
        return Ok(());
    }
    let state = out.painted(run.state.as_str());
    let has_conf = run.conf.as_object().is_some_and(|conf| !conf.is_empty());
    out.raw(&if has_conf {
        format!("{state}, {}\n", crate::output::visible(&run.conf.to_string()))
    } else {
        format!("{state}\n")
    })?;
    Ok(())
}

async fn delete(house: &House, dag_id: &str, yes: bool, out: &mut Out) -> anyhow::Result<()> {
    let (dag_id, runs): (DagId, u64) = {
        let mut tx = house.store.begin(TxMode::Read).await?;
        let dag_id = find::dag(&mut *tx, dag_id).await?.dag_id;
        let runs = tx.count_dag_runs(&dag_id, DagRunState::ALL, true).await?;
        (dag_id, runs)
    };
    if !confirm(&format!("Remove the DAG {dag_id} with its {runs} runs, their logs left out?"), yes)? {
        anyhow::bail!("nothing was removed");
    }
    gust_operations::delete_dag(ports(house), dag_id.clone()).await?;
    if out.is_structured() {
        out.value(&json!({ "dag_id": dag_id, "deleted_runs": runs }))?;
    } else {
        out.line(&format!("removed the DAG {dag_id} with {runs} runs"))?;
    }
    Ok(())
}
