//! The Python environment: the given one, checked, or one made from the hashed lock.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::embedded::{REQUIREMENTS_LOCK, short_hash};
use crate::{Error, HostConfig};

/// The task SDK that Gust speaks with.
pub const SDK_VERSION: &str = "1.3.2";
/// The Airflow core that parses DAG files for it.
pub const CORE_VERSION: &str = "3.3.2";

/// Written last into an environment of our making.
const COMPLETE: &str = "gust-complete";
/// Interpreters that are looked for, the best first.
const CANDIDATES: &[&str] = &["python3.13", "python3.12", "python3.11", "python3"];

/// An interpreter that has the pinned packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Path of the interpreter.
    pub python: PathBuf,
}

/// Where an environment comes from.
#[derive(Debug, Clone)]
pub struct EnvironmentConfig {
    /// Folder below which one is made.
    pub home: PathBuf,
    /// An interpreter to use as it is.
    pub python: Option<PathBuf>,
}

/// A step of making an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Another process makes it just now.
    Waiting,
    /// An empty environment is made with this interpreter.
    Creating(PathBuf),
    /// A package arrives.
    Collecting {
        /// Its name and version.
        package: String,
        /// How many have arrived, this one included.
        done: usize,
        /// How many there are, at most: some are for other platforms.
        total: usize,
    },
    /// All have arrived and are unpacked and compiled.
    Installing,
}

impl Environment {
    /// Finds or makes the environment, telling of every step.
    ///
    /// It is made once per home, lock and interpreter version. An interrupted one is made anew, and of two processes that
    /// start at once the second waits for the first.
    ///
    /// # Errors
    /// [`Error::WrongEnvironment`] for a given interpreter without the pinned packages, [`Error::NoPython`],
    /// [`Error::Install`].
    pub async fn ensure(
        config: &EnvironmentConfig,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Self, Error> {
        if let Some(python) = &config.python {
            return Self::check(python, &config.home).await;
        }
        let (base, version) = find_python().await?;
        let name = format!("venv-{}", short_hash([REQUIREMENTS_LOCK, &version]));
        let folder = config.home.join(&name);
        let environment = Self { python: folder.join("bin/python") };
        if folder.join(COMPLETE).is_file() {
            return Ok(environment);
        }
        fs::create_dir_all(&config.home).map_err(Error::io(format!("making {}", config.home.display())))?;
        let _lock = lock(&config.home.join(format!("{name}.lock")), &mut progress).await?;
        if folder.join(COMPLETE).is_file() {
            return Ok(environment);
        }
        // It is built in its final place, since scripts inside name the interpreter by its path; the mark at the end,
        // not the folder, says that it is whole.
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .map_err(Error::io(format!("removing the unfinished {}", folder.display())))?;
        }
        progress(Progress::Creating(base.clone()));
        let mut venv = Command::new(&base);
        run(venv.args(["-m", "venv"]).arg(&folder), |_| {}).await?;
        environment.install(&config.home, &mut progress).await?;
        let mark = folder.join(COMPLETE);
        fs::write(&mark, "").map_err(Error::io(format!("writing {}", mark.display())))?;
        Ok(environment)
    }

    async fn install(&self, home: &Path, progress: &mut (impl FnMut(Progress) + Send)) -> Result<(), Error> {
        let total = REQUIREMENTS_LOCK.lines().filter(|line| line.contains("==")).count();
        let mut done = 0;
        let mut pip = Command::new(&self.python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
            "--progress-bar",
            "off",
        ])
        .args(["--compile", "--only-binary", ":all:", "--require-hashes", "-r"])
        .arg(write_lock(home)?);
        run(&mut pip, |line| {
            if let Some(package) = line.strip_prefix("Collecting ") {
                done += 1;
                let package = package.split(" (from").next().unwrap_or(package).to_owned();
                progress(Progress::Collecting { package, done, total });
            } else if line.starts_with("Installing collected") {
                progress(Progress::Installing);
            }
        })
        .await
    }

    /// Takes an interpreter as it is, if it holds the pinned packages.
    async fn check(python: &Path, home: &Path) -> Result<Self, Error> {
        const ASK: &str = "import importlib.metadata as m, json\n\
             def v(n):\n    \
                 try: return m.version(n)\n    \
                 except m.PackageNotFoundError: return None\n\
             print(json.dumps({'sdk': v('apache-airflow-task-sdk'), 'core': v('apache-airflow-core')}))";
        #[derive(Deserialize)]
        struct Found {
            sdk: Option<String>,
            core: Option<String>,
        }
        let output = Command::new(python)
            .args(["-c", ASK])
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(Error::io(format!("running {}", python.display())))?;
        let wrong = |found: String| -> Result<Self, Error> {
            Err(Error::WrongEnvironment {
                python: python.to_owned(),
                found,
                sdk: SDK_VERSION,
                core: CORE_VERSION,
                lock: write_lock(home)?,
            })
        };
        let Ok(Found { sdk, core }) = serde_json::from_slice(&output.stdout) else {
            return wrong(format!("it did not answer: {}", String::from_utf8_lossy(&output.stderr).trim()));
        };
        match (sdk.as_deref(), core.as_deref()) {
            (Some(SDK_VERSION), Some(CORE_VERSION)) => Ok(Self { python: python.to_owned() }),
            (sdk, core) => wrong(format!(
                "it has apache-airflow-task-sdk {} and apache-airflow-core {}",
                sdk.unwrap_or("not at all"),
                core.unwrap_or("not at all")
            )),
        }
    }
}

/// Puts the lock file where a person or pip can read it.
pub(crate) fn write_lock(home: &Path) -> Result<PathBuf, Error> {
    let file = home.join("requirements.lock");
    if fs::read_to_string(&file).is_ok_and(|text| text == REQUIREMENTS_LOCK) {
        return Ok(file);
    }
    let context = || Error::io(format!("writing {}", file.display()));
    fs::create_dir_all(home).map_err(context())?;
    let aside = home.join(format!(".requirements.lock-{}", std::process::id()));
    fs::write(&aside, REQUIREMENTS_LOCK).map_err(context())?;
    fs::rename(&aside, &file).map_err(context())?;
    Ok(file)
}

/// What the base zygote gets as its whole environment.
pub(crate) fn child_env(config: &HostConfig) -> BTreeMap<String, String> {
    let mut env = config.env.clone();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    // Shell tasks expect this environment's `python` and `airflow`, as with an activated one.
    if let Some(bin) = config.environment.python.parent().filter(|bin| bin.is_absolute()) {
        let path = env.get("PATH").map_or_else(|| text(bin), |path| format!("{}:{path}", text(bin)));
        env.insert("PATH".into(), path);
    }
    for (name, value) in [
        ("AIRFLOW_HOME", text(&config.home.join("airflow"))),
        ("_AIRFLOW_PROCESS_CONTEXT", "client".into()),
        ("AIRFLOW__CORE__LOAD_EXAMPLES", "False".into()),
        ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite://".into()),
        ("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", "[]".into()),
    ] {
        env.insert(name.into(), value);
    }
    env
}

async fn find_python() -> Result<(PathBuf, String), Error> {
    const ASK: &str = "import sys; print(sys.executable); print('%d.%d' % sys.version_info[:2])";
    for candidate in CANDIDATES {
        let Ok(output) = Command::new(candidate).args(["-c", ASK]).stdin(Stdio::null()).output().await else {
            continue;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        if let (Some(path), Some(version @ ("3.11" | "3.12" | "3.13"))) = (lines.next(), lines.next()) {
            return Ok((path.into(), version.into()));
        }
    }
    Err(Error::NoPython("3.11, 3.12 or 3.13"))
}

async fn lock(path: &Path, progress: &mut (impl FnMut(Progress) + Send)) -> Result<Flock<File>, Error> {
    let context = format!("locking {}", path.display());
    let file = File::create(path).map_err(Error::io(context.clone()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((file, _)) => {
            progress(Progress::Waiting);
            let waited =
                tokio::task::spawn_blocking(move || Flock::lock(file, FlockArg::LockExclusive)).await;
            match waited {
                Ok(Ok(lock)) => Ok(lock),
                Ok(Err((_, problem))) => Err(Error::io(context)(problem.into())),
                Err(problem) => Err(Error::io(context)(std::io::Error::other(problem))),
            }
        }
    }
}

/// Runs a command, handing over each line of its output; its end is in the error.
async fn run(command: &mut Command, mut line: impl FnMut(&str)) -> Result<(), Error> {
    let step = format!("{:?}", command.as_std());
    let mut child = command
        .env_remove("PYTHONDONTWRITEBYTECODE")
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONHOME")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::io(format!("starting {step}")))?;
    let stderr = child.stderr.take();
    let complaints = tokio::spawn(async move {
        let mut text = String::new();
        if let Some(mut stderr) = stderr {
            // What cannot be read cannot be shown; the exit status decides.
            let _ = tokio::io::AsyncReadExt::read_to_string(&mut stderr, &mut text).await;
        }
        text
    });
    let mut last = std::collections::VecDeque::new();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(text)) = lines.next_line().await {
            line(&text);
            if last.len() == 20 {
                last.pop_front();
            }
            last.push_back(text);
        }
    }
    let status = child.wait().await.map_err(Error::io(format!("waiting for {step}")))?;
    if status.success() {
        return Ok(());
    }
    let complaints = complaints.await.unwrap_or_default();
    last.extend(complaints.lines().map(str::to_owned));
    Err(Error::Install { step, output: last.into_iter().collect::<Vec<_>>().join("\n") })
}
