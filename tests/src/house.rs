//! A home of Gust and a DAG folder, for one test.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::{binary::gust_binary, service::Service};

/// Settings of the machine that would change what is tested.
const DROPPED: [&str; 5] = ["GUST_", "AIRFLOW_", "AIRFLOW__", "_AIRFLOW", "RUST_LOG"];

/// A home folder, a DAG folder, and the settings of every process that works on them.
#[derive(Debug)]
pub struct House {
    folder: TempDir,
    settings: Vec<(String, String)>,
    metastore: Option<String>,
}

impl House {
    /// An empty one, on SQLite.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("gust-e2e-").tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("dags")).expect("a DAG folder");
        Self { folder, settings: Vec::new(), metastore: None }
    }

    /// An empty one on a metastore that is there.
    pub fn on(metastore: &str) -> Self {
        Self { metastore: Some(metastore.to_owned()), ..Self::new() }
    }

    /// Adds an environment variable of every process.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a DAG file, or replaces it.
    #[must_use]
    pub fn with_dag(self, name: &str, text: &str) -> Self {
        fs::write(self.dags().join(name), text).expect("a DAG file is written");
        self
    }

    /// Adds a copy of a folder of DAG files.
    #[must_use]
    pub fn with_dags_of(self, folder: &Path) -> Self {
        copy(folder, &self.dags()).expect("DAG files are copied");
        self
    }

    /// The DAG folder.
    pub fn dags(&self) -> PathBuf {
        self.folder.path().join("dags")
    }

    /// The home folder of Gust.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A file beside both.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command line of `gust`, free of the machine's settings.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(gust_binary());
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| DROPPED.iter().any(|start| name.starts_with(start))) {
                command.env_remove(&name);
            }
        }
        // Compiled byte code is kept, as it is for users.
        command.env_remove("PYTHONDONTWRITEBYTECODE").env("RUST_BACKTRACE", "1");
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.folder.path());
        command.args(arguments).arg("--home").arg(self.home());
        if let Some(url) = &self.metastore {
            command.args(["--metastore", url]);
        }
        command
    }

    /// Runs a command of `gust` to its end.
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        self.command(arguments).output().expect("gust runs")
    }

    /// Runs a command of `gust` that must succeed, and returns what it printed.
    pub fn run_well<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "gust failed ({}):\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a long-lived command. What it writes is in the file `NAME.out` beside the home.
    pub fn start<'a>(&self, name: &str, arguments: impl IntoIterator<Item = &'a str>) -> Service {
        let written = self.file(&format!("{name}.out"));
        Service::start(name, &mut self.command(arguments), written)
    }
}

impl Default for House {
    fn default() -> Self {
        Self::new()
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() == "__pycache__" {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
