//! The command line: what `gust` can be asked for.
#![expect(clippy::doc_markdown, reason = "what is written here is shown as plain text by --help")]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use gust_config::Flag;

use crate::{
    commands::{
        bundle::BundleCommand, config::ConfigCommand, connections::ConnectionsCommand, dags::DagsCommand,
        db::DbCommand, pools::PoolsCommand, tasks::TasksCommand, variables::VariablesCommand,
    },
    output::Format,
};

/// Gust, a serverless Airflow: runs Airflow DAGs without an Airflow to keep running.
#[derive(Debug, Parser)]
#[command(
    name = "gust",
    version,
    about,
    propagate_version = false,
    disable_help_subcommand = true,
    after_help = "Examples:
  gust standalone                          everything in one process, on http://127.0.0.1:8080
  gust dags trigger hello                  a run of the DAG `hello`, now
  gust tasks logs hello manual__… greet -f the log of a task, as it is written
  gust dags list -o json | jq .            for scripts

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What applies to every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The folder for what Gust keeps on this machine [default: ~/.gust]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// The metastore: postgres://user:password@host/name or sqlite:///path [default: SQLite in the home folder]
    #[arg(long, global = true, value_name = "URL")]
    pub metastore: Option<String>,
    /// The configuration file [default: gust.toml in the home folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How results are printed [default: table on a terminal, plain otherwise]
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Say more about what is done; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process, with no server to install
    #[command(after_help = "Examples:
  gust standalone
  gust standalone --dags ./dags --port 9000
  gust standalone --python .venv/bin/python")]
    Standalone(StandaloneArgs),
    /// Run a scheduler; several may share a metastore
    Scheduler,
    /// Parse DAG files into the metastore, and again when they change
    DagProcessor(DagProcessorArgs),
    /// Run task instances of one or more queues
    Worker(WorkerArgs),
    /// Wait for what deferred tasks wait for
    Triggerer(PythonArgs),
    /// Serve the pages and the REST API
    Web(WebArgs),
    /// Look at DAGs and their runs, trigger, pause, test them
    #[command(subcommand, visible_alias = "dag")]
    Dags(DagsCommand),
    /// Look at tasks, their states and logs, clear them
    #[command(subcommand, visible_alias = "task")]
    Tasks(TasksCommand),
    /// Pack folders of DAG files and send them to where schedulers and workers find them
    #[command(subcommand, visible_alias = "bundles")]
    Bundle(BundleCommand),
    /// Limit how many tasks run at once
    #[command(subcommand, visible_alias = "pool")]
    Pools(PoolsCommand),
    /// Keep values for DAGs
    #[command(subcommand, visible_alias = "variable")]
    Variables(VariablesCommand),
    /// Keep addresses and credentials of other systems for DAGs
    #[command(subcommand, visible_alias = "connection")]
    Connections(ConnectionsCommand),
    /// Look at the configuration and where each value comes from
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make or check the metastore's schema
    #[command(subcommand)]
    Db(DbCommand),
    /// Print a token for the REST API of `gust web`, signed with this house's secret
    #[command(after_help = "Example:
  curl -H \"Authorization: Bearer $(gust token)\" http://127.0.0.1:8080/api/v2/dags")]
    Token(TokenArgs),
    /// Print the version
    Version,
}

impl Command {
    /// The name under which a long-lived process keeps its own log; `None` for commands that end by themselves.
    pub fn service(&self) -> Option<&'static str> {
        match self {
            Self::Standalone(_) => Some("standalone"),
            Self::Scheduler => Some("scheduler"),
            Self::DagProcessor(_) => Some("dag-processor"),
            Self::Worker(_) => Some("worker"),
            Self::Triggerer(_) => Some("triggerer"),
            Self::Web(_) => Some("web"),
            _ => None,
        }
    }
}

/// `gust standalone`.
#[derive(Debug, Args)]
pub struct StandaloneArgs {
    /// The folder of DAG files [default: the home folder's, with a few samples in it]
    #[arg(long, value_name = "DIR")]
    pub dags: Option<PathBuf>,
    /// How many task instances run at once [default: four a processor core, at least eight]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,
    #[command(flatten)]
    address: AddressArgs,
    #[command(flatten)]
    python: PythonArgs,
}

/// `gust dag-processor`.
#[derive(Debug, Args)]
pub struct DagProcessorArgs {
    /// The folder of DAG files
    #[arg(long, value_name = "DIR")]
    pub dags: Option<PathBuf>,
    #[command(flatten)]
    python: PythonArgs,
}

/// `gust worker`.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The queues to take task instances from, separated by commas
    #[arg(short, long, value_name = "NAMES", value_delimiter = ',', default_value = "default")]
    pub queues: Vec<String>,
    /// How many task instances run at once [default: four a processor core, at least eight]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,
    #[command(flatten)]
    python: PythonArgs,
}

/// Which Python.
#[derive(Debug, Args)]
pub struct PythonArgs {
    /// An interpreter that has the Task SDK [default: an environment that Gust makes in its home folder]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
}

/// `gust token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// In whose name it speaks
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub user: String,
    /// It may only look, and not at Variables, Connections and the configuration
    #[arg(long)]
    pub viewer: bool,
}

/// `gust web`.
#[derive(Debug, Args)]
pub struct WebArgs {
    #[command(flatten)]
    address: AddressArgs,
}

#[derive(Debug, Args)]
struct AddressArgs {
    /// The port to listen on; 0 for any that is free [default: 8080]
    #[arg(short, long, value_name = "N")]
    port: Option<u16>,
    /// The address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
}

impl Cli {
    /// What the command line says about the configuration.
    pub fn flags(&self) -> Vec<Flag> {
        let mut flags = Flags::default();
        flags.path("--home", "gust.home", self.global.home.as_ref());
        flags.text("--metastore", "metastore.url", self.global.metastore.as_ref());
        let (dags, address, python) = match &self.command {
            Command::Standalone(args) => (args.dags.as_ref(), Some(&args.address), Some(&args.python)),
            Command::DagProcessor(args) => (args.dags.as_ref(), None, Some(&args.python)),
            Command::Worker(args) => (None, None, Some(&args.python)),
            Command::Triggerer(args) => (None, None, Some(args)),
            Command::Web(args) => (None, Some(&args.address), None),
            Command::Dags(DagsCommand::Test(args)) => (args.dags.as_ref(), None, Some(&args.python)),
            _ => (None, None, None),
        };
        flags.path("--dags", "core.dags_folder", dags);
        if let Some(address) = address {
            flags.text("--port", "api.port", address.port.map(|port| port.to_string()).as_ref());
            flags.text("--host", "api.host", address.host.as_ref());
        }
        if let Some(python) = python {
            flags.path("--python", "python.interpreter", python.python.as_ref());
        }
        flags.0
    }
}

#[derive(Default)]
struct Flags(Vec<Flag>);

impl Flags {
    fn text(&mut self, flag: &str, key: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.0.push(Flag { flag: flag.to_owned(), key: key.to_owned(), value: value.clone() });
        }
    }

    /// Paths on the command line are meant from the folder in which it is typed.
    fn path(&mut self, flag: &str, key: &str, value: Option<&PathBuf>) {
        let absolute = value.map(|path| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            path.to_string_lossy().into_owned()
        });
        self.text(flag, key, absolute.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn paths_are_meant_from_where_they_are_typed_and_flags_name_their_origin() {
        let cli =
            Cli::try_parse_from(["gust", "standalone", "--dags", "dags", "--port", "0", "--home", "/h"])
                .unwrap();
        let flags = cli.flags();
        let here = std::env::current_dir().unwrap().join("dags");
        let find = |key: &str| flags.iter().find(|flag| flag.key == key).unwrap();
        assert_eq!(find("core.dags_folder").value, here.to_str().unwrap());
        assert_eq!(find("api.port").value, "0");
        assert_eq!(find("gust.home").flag, "--home");
    }
}
