//! The `gust` binary: services and commands over one house of adapters.

mod args;
mod commands;
mod house;
mod logs;
mod output;
mod services;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use clap::Parser as _;
use gust_config::{Config, ConfigErrors, Sources};

use crate::{
    args::{Cli, Command},
    commands::{UsageError, dags::DagsCommand},
    output::Out,
    services::StandaloneOptions,
};

/// Wrong usage or configuration, as clap has it for the command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    if let Command::Dags(DagsCommand::Test(args)) = &mut cli.command {
        args.config_file.clone_from(&cli.global.config);
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let (red, plain) =
                if io::stderr().is_terminal() { ("\u{1b}[31m", "\u{1b}[0m") } else { ("", "") };
            eprintln!("{red}error:{plain} {error:#}");
            let is_usage = error.is::<ConfigErrors>() || error.is::<UsageError>();
            if is_usage { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// Whoever reads our output may stop reading, as `head` does.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let mut out = Out::stdout(cli.global.output);
    // These work, whatever is configured.
    match &cli.command {
        Command::Version => return commands::version(&mut out),
        Command::Config(command) if !command.needs_config() => return commands::config::reference(&mut out),
        _ => {}
    }
    let sources = Sources::from_process(cli.flags(), cli.global.config.clone())?;
    let config = Config::load(&sources)?;
    logs::begin(&config, cli.command.service(), cli.global.verbose)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(dispatch(cli.command, config, &mut out))
}

async fn dispatch(command: Command, config: Config, out: &mut Out) -> anyhow::Result<()> {
    match command {
        Command::Standalone(args) => {
            commands::db::refuse_airflow(&config).await?;
            services::standalone(config, StandaloneOptions { concurrency: args.concurrency }).await
        }
        Command::Scheduler => services::scheduler(config).await,
        Command::DagProcessor(_) => services::dag_processor(config).await,
        Command::Worker(args) => {
            let queues = args.queues.into_iter().map(Into::into).collect();
            services::worker(config, queues, args.concurrency).await
        }
        Command::Triggerer(_) => services::triggerer(config).await,
        Command::Web(_) => services::web(config).await,
        Command::Token(args) => {
            let token = services::token(config, &args.user, args.viewer).await?;
            Ok(out.line(&token)?)
        }
        Command::Dags(command) => commands::dags::run(command, config, out).await,
        Command::Tasks(command) => commands::tasks::run(command, config, out).await,
        Command::Bundle(command) => commands::bundle::run(command, config, out).await,
        Command::Pools(command) => commands::pools::run(command, config, out).await,
        Command::Variables(command) => commands::variables::run(command, config, out).await,
        Command::Connections(command) => commands::connections::run(command, config, out).await,
        Command::Config(command) => commands::config::run(&command, &config, out),
        Command::Db(command) => commands::db::run(command, config, out).await,
        Command::Version => commands::version(out),
    }
}
