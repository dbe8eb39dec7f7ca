//! Where values come from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{ConfigError, ConfigErrors};
use crate::values;

/// Runs the command line of an Airflow `…_CMD` variable and gives what it prints.
pub type RunCommand = Box<dyn Fn(&str) -> Result<String, String>>;

/// One setting given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The flag as it was typed, such as `--port`; shown as the value's origin.
    pub flag: String,
    /// The setting that it sets, `section.key`.
    pub key: String,
    /// The value, as text.
    pub value: String,
}

/// Everything that a [`crate::Config`] is made of.
pub struct Sources {
    /// `gust.toml`: its path, for messages and for paths relative to it, and its text.
    pub file: Option<(PathBuf, String)>,
    /// The process environment; other variables than `GUST__` and `AIRFLOW__` serve to expand `~` and `$NAME`.
    pub env: BTreeMap<String, String>,
    /// The command line's settings; of several for one setting the last holds.
    pub flags: Vec<Flag>,
    /// How to run an Airflow `…_CMD`.
    pub run_command: RunCommand,
}

impl Default for Sources {
    fn default() -> Self {
        Self { file: None, env: BTreeMap::new(), flags: Vec::new(), run_command: Box::new(run_command) }
    }
}

impl Sources {
    /// The sources of this process: its environment, and the file `explicit`, or else `gust.toml` in the home folder
    /// if there is one. The home folder is looked up in the flags, in `GUST__GUST__HOME`, and is `~/.gust` otherwise.
    ///
    /// # Errors
    /// A file that cannot be read (an explicit one must exist), and a variable of Gust's or Airflow's that is not
    /// UTF-8.
    pub fn from_process(flags: Vec<Flag>, explicit: Option<PathBuf>) -> Result<Self, ConfigErrors> {
        let mut env = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => {
                    env.insert(name, value);
                }
                Err(_) if name.starts_with("GUST__") || name.starts_with("AIRFLOW__") => {
                    problems.push(ConfigError::NotUtf8 { variable: name });
                }
                Err(_) => {}
            }
        }
        let must_exist = explicit.is_some();
        let path = explicit.or_else(|| home(&flags, &env).map(|home| home.join("gust.toml")));
        let file = match path.map(|path| (std::fs::read_to_string(&path), path)) {
            Some((Ok(text), path)) => Some((path, text)),
            Some((Err(error), _)) if !must_exist && error.kind() == std::io::ErrorKind::NotFound => None,
            Some((Err(error), path)) => {
                let path = path.display().to_string();
                problems.push(ConfigError::Unreadable { path, reason: error.to_string() });
                None
            }
            None => None,
        };
        if problems.is_empty() {
            Ok(Self { file, env, flags, ..Self::default() })
        } else {
            Err(ConfigErrors(problems))
        }
    }
}

fn home(flags: &[Flag], env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let flag = flags.iter().rev().find(|flag| flag.key == "gust.home").map(|flag| flag.value.as_str());
    let text = flag.or_else(|| env.get("GUST__GUST__HOME").map(String::as_str)).unwrap_or("~/.gust");
    let expanded = values::expand(text, env);
    // Without HOME the tilde stays; loading then says which setting needs a value.
    (!expanded.starts_with('~')).then(|| Path::new(&expanded).to_path_buf())
}

/// Splits the line as a shell would, runs it without a shell as Airflow does (`configuration.py: run_command`), and
/// takes the line end off its output, where a secret never has one.
fn run_command(line: &str) -> Result<String, String> {
    let words = shlex::split(line).ok_or_else(|| "its quotes do not match".to_owned())?;
    let (program, arguments) = words.split_first().ok_or_else(|| "it is empty".to_owned())?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said = if stderr.trim().is_empty() { String::new() } else { format!(": {}", stderr.trim()) };
        return Err(format!("{program} ended with {}{said}", output.status));
    }
    let text = String::from_utf8(output.stdout).map_err(|_| format!("{program} did not print UTF-8 text"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the setting's default.
    Default,
    /// In the configuration file, at this line.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In this environment variable.
    Env(String),
    /// On the command line, by this flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { path, line } => write!(out, "{}:{line}", path.display()),
            Self::Env(name) | Self::Flag(name) => out.write_str(name),
        }
    }
}
