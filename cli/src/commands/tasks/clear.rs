use clap::Args;
use gust_model::{RunId, TaskId};
use gust_operations::{ClearRequest, clear_task_instances, latest_dag};
use gust_ports::metastore::{TimeRange, TxMode};
use serde_json::Value;

use super::{UsageError, cleared_row, confirm, find, moment, ports};
use crate::{house::House, output::Out};

/// `gust tasks clear`.
#[derive(Debug, Args)]
pub struct ClearArgs {
    /// The DAG
    dag_id: String,
    /// Only tasks whose ids this regular expression matches
    #[arg(short, long, value_name = "REGEX")]
    task_regex: Option<String>,
    /// Only in this run, by id or logical date [default: in all runs]
    #[arg(long, value_name = "RUN_ID", conflicts_with_all = ["start_date", "end_date"])]
    run_id: Option<String>,
    /// Only in runs whose logical date is not before this
    #[arg(short, long, value_name = "DATE")]
    start_date: Option<String>,
    /// Only in runs whose logical date is not after this
    #[arg(short, long, value_name = "DATE")]
    end_date: Option<String>,
    /// And what comes before them
    #[arg(short, long)]
    upstream: bool,
    /// And what comes after them
    #[arg(short, long)]
    downstream: bool,
    /// Only what failed
    #[arg(short = 'f', long)]
    only_failed: bool,
    /// Only what runs
    #[arg(short = 'r', long)]
    only_running: bool,
    /// Follow the DAG's newest version rather than the one that the run began with
    #[arg(long)]
    latest_version: bool,
    /// Only say what would be cleared
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// `gust tasks clear`.
pub async fn run(house: &House, args: ClearArgs, out: &mut Out) -> anyhow::Result<()> {
    let request = request(house, &args).await?;
    let dry = ClearRequest { dry_run: true, ..request.clone() };
    let found = clear_task_instances(ports(house), dry).await?;
    let columns = ["run_id", "task_id", "map_index", "state"];
    if found.is_empty() || args.dry_run {
        let rows: Vec<Value> = found.iter().map(cleared_row).collect();
        out.rows(&columns, &rows, "nothing to clear")?;
        return Ok(());
    }
    if !args.yes && !out.is_structured() {
        let rows: Vec<Value> = found.iter().map(cleared_row).collect();
        out.rows(&columns, &rows, "")?;
    }
    if !confirm(&format!("Clear these {} task instances?", found.len()), args.yes)? {
        anyhow::bail!("nothing was cleared");
    }
    let cleared = clear_task_instances(ports(house), request).await?;
    let rows: Vec<Value> = cleared.iter().map(cleared_row).collect();
    if out.is_structured() {
        out.rows(&columns, &rows, "")?;
    } else {
        out.line(&format!("cleared {} task instances", cleared.len()))?;
    }
    Ok(())
}

async fn request(house: &House, args: &ClearArgs) -> anyhow::Result<ClearRequest> {
    let mut tx = house.store.begin(TxMode::Read).await?;
    let dag_id = find::dag(&mut *tx, &args.dag_id).await?.dag_id;
    let run_id: Option<RunId> = match &args.run_id {
        Some(written) => Some(find::run(&mut *tx, &house.config, &args.dag_id, written).await?.run_id),
        None => None,
    };
    let tasks = match &args.task_regex {
        None => None,
        Some(pattern) => {
            let pattern =
                regex::Regex::new(pattern).map_err(|error| UsageError(format!("--task-regex: {error}")))?;
            let Some((_, dag)) = latest_dag(&mut *tx, &dag_id).await? else {
                anyhow::bail!("the DAG {dag_id} was removed while it was read");
            };
            let matching: Vec<(TaskId, _)> = dag
                .tasks()
                .iter()
                .filter(|task| pattern.is_match(task.task_id.as_str()))
                .map(|task| (task.task_id.clone(), None))
                .collect();
            anyhow::ensure!(!matching.is_empty(), "no task of the DAG {dag_id} matches {}", pattern.as_str());
            Some(matching)
        }
    };
    Ok(ClearRequest {
        dag_id,
        run_id,
        dates: TimeRange {
            gte: moment::option("--start-date", args.start_date.as_deref(), &house.config)?,
            lte: moment::option("--end-date", args.end_date.as_deref(), &house.config)?,
            ..TimeRange::default()
        },
        tasks,
        with_upstream: args.upstream,
        with_downstream: args.downstream,
        with_past: false,
        with_future: false,
        only_failed: args.only_failed,
        only_running: args.only_running,
        reset_dag_runs: true,
        run_on_latest_version: args.latest_version.then_some(true),
        prevent_running_task: false,
        dry_run: false,
        note: None,
    })
}
