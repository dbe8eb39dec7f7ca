//! `gust tasks …`

mod clear;
mod log_lines;
mod logs;

use clap::Subcommand;
use gust_config::Config;
use gust_model::record::TaskInstance;
use gust_operations::latest_dag;
use gust_ports::metastore::TxMode;
use serde_json::{Value, json};

use super::{UsageError, confirm::confirm, dags::task_value, find, moment, open, ports};
use crate::{
    house::House,
    output::{Out, row, with},
};

pub use logs::print_log;

/// `gust tasks …`
#[derive(Debug, Subcommand)]
pub enum TasksCommand {
    /// List the tasks of a DAG, each after those before it
    #[command(after_help = "Example: gust tasks list hello")]
    List {
        /// The DAG
        dag_id: String,
    },
    /// List the states of all task instances of a run
    #[command(
        visible_alias = "states-for-dag-run",
        after_help = "Examples:
  gust tasks states hello manual__2026-01-31T06:30:00+00:00
  gust tasks states hello 2026-01-31 -o json"
    )]
    States {
        /// The DAG
        dag_id: String,
        /// The run's id or logical date
        #[arg(value_name = "RUN_ID|LOGICAL_DATE")]
        run: String,
    },
    /// Print the state of one task instance
    #[command(after_help = "Example: gust tasks state hello greet manual__2026-01-31T06:30:00+00:00")]
    State(Place),
    /// Print the log of a task instance, or follow it while it is written
    #[command(after_help = "Examples:
  gust tasks logs hello manual__2026-01-31T06:30:00+00:00 greet
  gust tasks logs hello 2026-01-31 greet --try 1
  gust tasks logs hello 2026-01-31 mapped --map-index 3 --follow
  gust tasks logs hello 2026-01-31 greet -o json | jq -r .event")]
    Logs(logs::LogsArgs),
    /// Print the templated fields of a task instance as they were rendered when it last ran
    #[command(after_help = "Example: gust tasks render hello 2026-01-31 greet")]
    Render(Place),
    /// Let task instances run again
    #[command(after_help = "Examples:
  gust tasks clear hello --only-failed --yes
  gust tasks clear hello --run-id manual__2026-01-31T06:30:00+00:00 -t '^load' --downstream
  gust tasks clear hello --start-date 2026-01-01 --end-date 2026-01-31 --yes")]
    Clear(clear::ClearArgs),
}

/// A task instance on the command line.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The DAG
    dag_id: String,
    /// The run's id or logical date, or the task
    #[arg(value_name = "RUN_ID")]
    one: String,
    /// The task, or the run's id or logical date
    #[arg(value_name = "TASK_ID")]
    other: String,
    /// The index, for a mapped task
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    map_index: Option<i32>,
}

/// Runs a command.
///
/// # Errors
/// What went wrong, for people.
pub async fn run(command: TasksCommand, config: Config, out: &mut Out) -> anyhow::Result<()> {
    let house = open(config).await?;
    match command {
        TasksCommand::List { dag_id } => list(&house, &dag_id, out).await,
        TasksCommand::States { dag_id, run } => states(&house, &dag_id, &run, out).await,
        TasksCommand::State(place) => state(&house, &place, out).await,
        TasksCommand::Logs(args) => logs::run(&house, args, out).await,
        TasksCommand::Render(place) => render(&house, &place, out).await,
        TasksCommand::Clear(args) => clear::run(&house, args, out).await,
    }
}

async fn list(house: &House, dag_id: &str, out: &mut Out) -> anyhow::Result<()> {
    let mut tx = house.store.begin(TxMode::Read).await?;
    let record = find::dag(&mut *tx, dag_id).await?;
    let Some((_, dag)) = latest_dag(&mut *tx, &record.dag_id).await? else {
        anyhow::bail!("the DAG {dag_id} was removed while it was read");
    };
    let rows: Vec<Value> = dag.topological().iter().map(|&index| task_value(&dag, index)).collect();
    out.rows(&["task_id", "operator", "trigger_rule", "retries", "pool", "upstream"], &rows, "no tasks")?;
    Ok(())
}

fn instance_row(instance: &TaskInstance) -> anyhow::Result<Value> {
    // The lease and the planner's counters are nobody's business outside, and the attempt's UUID is its fence.
    let mut row = with(row(instance)?, [("duration", instance.duration().into())]);
    if let Value::Object(fields) = &mut row {
        for inner in ["lease", "accounted_state", "is_dirty", "change_seq", "next_kwargs"] {
            fields.remove(inner);
        }
    }
    Ok(row)
}

async fn states(house: &House, dag_id: &str, written: &str, out: &mut Out) -> anyhow::Result<()> {
    let mut tx = house.store.begin(TxMode::Read).await?;
    let run = find::run(&mut *tx, &house.config, dag_id, written).await?;
    let instances = tx.task_instances_of(run.id, &[]).await?;
    let rows = instances.iter().map(instance_row).collect::<Result<Vec<_>, _>>()?;
    let mut columns = vec!["task_id", "state", "try_number=try", "start_date", "end_date", "duration"];
    if instances.iter().any(|instance| instance.map_index.is_mapped()) {
        columns.insert(1, "map_index");
    }
    out.rows(&columns, &rows, &format!("no task instances yet: the run is {}", run.state))?;
    Ok(())
}

async fn state(house: &House, place: &Place, out: &mut Out) -> anyhow::Result<()> {
    let instance = locate(house, place).await?;
    if out.is_structured() {
        out.value(&instance_row(&instance)?)?;
    } else {
        let state = out.painted(instance.state.as_str());
        out.raw(&format!("{state}\n"))?;
    }
    Ok(())
}

async fn locate(house: &House, place: &Place) -> anyhow::Result<TaskInstance> {
    let mut tx = house.store.begin(TxMode::Read).await?;
    let (run, task_id) =
        find::run_and_task(&mut *tx, &house.config, &place.dag_id, &place.one, &place.other).await?;
    find::task_instance(&mut *tx, &run, &task_id, place.map_index).await
}

async fn render(house: &House, place: &Place, out: &mut Out) -> anyhow::Result<()> {
    let instance = locate(house, place).await?;
    let mut tx = house.store.begin(TxMode::Read).await?;
    let Some(fields) = tx.rendered_fields(instance.id).await? else {
        anyhow::bail!(
            "nothing was rendered for the task {} yet: it is {}, and fields are rendered when it runs",
            instance.task_id,
            instance.state
        );
    };
    if out.is_structured() {
        out.value(&fields)?;
        return Ok(());
    }
    for (name, value) in fields.as_object().into_iter().flatten() {
        out.line(&format!("# {name}"))?;
        match value {
            Value::String(text) => out.line(text)?,
            other => out.line(&format!("{other:#}"))?,
        }
        out.line("")?;
    }
    Ok(())
}

/// What clearing says of each task instance.
fn cleared_row(instance: &TaskInstance) -> Value {
    json!({
        "dag_id": instance.dag_id, "run_id": instance.run_id, "task_id": instance.task_id,
        "map_index": instance.map_index, "state": instance.state,
    })
}
