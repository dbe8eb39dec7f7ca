use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use gust_config::{Config, Flag, Sources};
use gust_model::{
    DagId, DagRunState, MapIndex, RunId, TaskId, TaskInstanceState, TriggeredBy, record::TaskInstance,
};
use gust_operations::TriggerRequest;
use gust_ports::metastore::TxMode;
use serde_json::{Value, json};

use super::{conf, moment};
use crate::{
    args::PythonArgs,
    commands::tasks::print_log,
    house::House,
    output::{Out, row},
    services::{TestRun, test_run},
};

/// `gust dags test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The DAG
    dag_id: String,
    /// The folder of DAG files [default: the configured one]
    #[arg(long, value_name = "DIR")]
    pub dags: Option<PathBuf>,
    /// The run's parameters: a JSON object, or @FILE with one
    #[arg(short, long, value_name = "JSON")]
    conf: Option<String>,
    /// The run's id [default: made from the moment]
    #[arg(short, long, value_name = "RUN_ID")]
    run_id: Option<String>,
    /// The date that the run stands for [default: none]
    #[arg(short, long, value_name = "DATE")]
    logical_date: Option<String>,
    /// Leave the logs out
    #[arg(long)]
    no_logs: bool,
    /// Which Python.
    #[command(flatten)]
    pub python: PythonArgs,
    /// The configuration file that the whole command line names.
    #[arg(skip)]
    pub config_file: Option<PathBuf>,
}

/// `gust dags test`.
pub async fn run(args: TestArgs, config: Config, out: &mut Out) -> anyhow::Result<()> {
    for (name, folder, _) in config.bundles() {
        anyhow::ensure!(
            folder.is_dir(),
            "the folder {} of the bundle {name} does not exist; give the folder of DAG files by --dags",
            folder.display()
        );
    }
    let folder = tempfile::Builder::new().prefix("gust-test-").tempdir().context("making a scratch home")?;
    let scratch = scratch_config(&config, folder.path(), args.config_file.as_deref())?;
    let dag_id = DagId::from(args.dag_id.as_str());
    let request = TriggerRequest {
        run_id: args.run_id.map(RunId::from),
        logical_date: moment::option("--logical-date", args.logical_date.as_deref(), &config)?,
        conf: conf(args.conf.as_deref())?,
        ..TriggerRequest::new(dag_id.clone(), TriggeredBy::Test)
    };
    let house = House::open(config).await?;
    let mut seen = States::default();
    let tried = test_run(&house, scratch, &dag_id, request, |now| seen.tell(now, out)).await?;
    report(&tried, !args.no_logs, out).await?;
    tried.house.sql.close().await;
    anyhow::ensure!(
        tried.run.state == DagRunState::Success,
        "the run of {dag_id} ended as {}",
        tried.run.state
    );
    Ok(())
}

/// The same configuration in a home of its own: its own metastore and logs, the same DAGs and Python.
fn scratch_config(config: &Config, home: &Path, file: Option<&Path>) -> anyhow::Result<Config> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut settings = vec![
        ("gust.home", text(home)),
        ("metastore.url", format!("sqlite://{}", text(&home.join("gust.db")))),
        ("core.dags_folder", text(&config.core.dags_folder)),
        ("core.plugins_folder", text(&config.core.plugins_folder)),
        ("core.dags_are_paused_at_creation", "false".to_owned()),
        ("python.env_dir", text(&config.python.env_dir)),
        ("logging.base_log_folder", text(&home.join("logs"))),
        ("logging.remote_logging", "false".to_owned()),
    ];
    if let Some(interpreter) = &config.python.interpreter {
        settings.push(("python.interpreter", text(interpreter)));
    }
    let flags = settings
        .into_iter()
        .map(|(key, value)| Flag { flag: "gust dags test".to_owned(), key: key.to_owned(), value })
        .collect();
    // The real home's file holds for the scratch home as well.
    let own = config.gust.home.join("gust.toml");
    let file = file.map(Path::to_path_buf).or_else(|| own.is_file().then_some(own));
    Ok(Config::load(&Sources::from_process(flags, file)?)?)
}

/// What was last said of each task instance.
#[derive(Default)]
struct States(BTreeMap<(TaskId, MapIndex), (TaskInstanceState, i32)>);

impl States {
    fn tell(&mut self, now: &[TaskInstance], out: &mut Out) {
        if out.is_structured() {
            return;
        }
        for instance in now {
            let is = (instance.state, instance.try_number);
            let was = self.0.insert((instance.task_id.clone(), instance.map_index), is);
            if was == Some(is) || instance.state == TaskInstanceState::None {
                continue;
            }
            let state = out.painted(instance.state.as_str());
            // A pipe that nobody reads any more ends the command when the report is printed.
            let _ = out.raw(&format!("{}  {state}\n", name(instance)));
        }
    }
}

fn name(instance: &TaskInstance) -> String {
    let index =
        if instance.map_index.is_mapped() { format!("[{}]", instance.map_index) } else { String::new() };
    let tried =
        if instance.try_number > 1 { format!(" (try {})", instance.try_number) } else { String::new() };
    format!("{}{index}{tried}", crate::output::visible(instance.task_id.as_str()))
}

async fn report(tried: &TestRun, with_logs: bool, out: &mut Out) -> anyhow::Result<()> {
    if out.is_structured() {
        let instances = tried.task_instances.iter().map(row).collect::<Result<Vec<Value>, _>>()?;
        out.value(&json!({ "dag_run": row(&tried.run)?, "task_instances": instances }))?;
        return Ok(());
    }
    if with_logs {
        for instance in &tried.task_instances {
            for try_number in 1..=instance.try_number {
                out.raw(&format!("\n── {} · try {try_number}\n", name(instance)))?;
                print_log(&tried.house, instance, try_number, out).await?;
            }
        }
    }
    let broken = broken_files(tried).await?;
    let state = out.painted(tried.run.state.as_str());
    out.raw(&format!("\n{}  {state}\n", tried.run.run_id))?;
    for line in broken {
        out.line(&line)?;
    }
    Ok(())
}

/// Files that could not be read: they may be why a test shows an older DAG than its author expects.
async fn broken_files(tried: &TestRun) -> anyhow::Result<Vec<String>> {
    let mut tx = tried.house.store.begin(TxMode::Read).await?;
    let errors = tx.import_errors(20, 0).await?.items;
    Ok(errors.iter().map(|error| format!("import error in {}", error.filename)).collect())
}
