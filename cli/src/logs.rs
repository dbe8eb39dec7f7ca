//! The process's own log: to stderr or to a file, as text or JSON.

use std::{
    fs::{self, OpenOptions},
    io::IsTerminal as _,
    sync::Mutex,
};

use anyhow::Context as _;
use gust_config::{Config, LogFormat, LogLevel};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Begins to log. A service logs as configured, to a file named after it where a folder is given; a command that ends by
/// itself logs warnings to stderr, more with `-v`.
///
/// # Errors
/// When the log file cannot be opened.
pub fn begin(config: &Config, service: Option<&str>, verbose: u8) -> anyhow::Result<()> {
    let configured = match config.logging.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let level = match (service, verbose) {
        (None, 0) => "warn",
        (Some(_), 0) => configured,
        (None, 1) => "info",
        (Some(_), 1) | (_, 2) => "debug",
        _ => "trace",
    };
    // Statements and connections of the database are of use to whoever asks for everything only.
    let quiet = if level == "trace" { "" } else { ",sqlx=warn,hyper=warn,h2=warn" };
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => {
            EnvFilter::try_new(&directives).with_context(|| format!("RUST_LOG={directives:?}"))?
        }
        _ => EnvFilter::new(format!("{level}{quiet}")),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let is_json = config.logging.format == LogFormat::Json;
    if let (Some(folder), Some(service)) = (&config.logging.dir, service) {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let path = folder.join(format!("{service}.log"));
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening the log {}", path.display()))?;
        let layer = fmt::layer().with_writer(Mutex::new(file)).with_ansi(false);
        if is_json { registry.with(layer.json()).init() } else { registry.with(layer).init() }
    } else {
        let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        if is_json { registry.with(layer.json()).init() } else { registry.with(layer).init() }
    }
    for note in config.notes() {
        tracing::info!("{note}");
    }
    Ok(())
}
