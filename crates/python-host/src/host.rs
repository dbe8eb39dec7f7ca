//! The host: one base zygote, file zygotes below it, and children forked from them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::Mutex as AsyncMutex;
use tracing::{debug, info, warn};

use crate::child::{Child, Limits};
use crate::control::{Kind, Ready};
use crate::env::{CORE_VERSION, Environment, SDK_VERSION};
use crate::messages::{SCHEMA_VERSION, StartupDetails, ToTask};
use crate::zygote::{Order, Zygote};
use crate::{Error, embedded, env, frame};

/// How a host works. [`HostConfig::new`] has values that fit.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// The interpreter and its packages.
    pub environment: Environment,
    /// Folder for what the host writes: the Python package and a scratch `AIRFLOW_HOME`.
    pub home: PathBuf,
    /// The whole environment of the children, before each one's own additions. [`inherited_env`] makes one.
    pub env: BTreeMap<String, String>,
    /// Whether DAG files are imported once and forked from, or by each task.
    pub preparse: bool,
    /// A file zygote older than this is replaced before the next task: import-time values freeze that long.
    pub file_zygote_max_age: Duration,
    /// A file zygote that has forked this many children is replaced.
    pub file_zygote_max_forks: u32,
    /// A file zygote without work for this long ends.
    pub file_zygote_idle: Duration,
    /// File zygotes kept at once. Beyond it the one used least recently makes room, if it has not been used for some
    /// seconds; else tasks of further files import for themselves.
    pub file_zygotes_max: usize,
    /// How long the import of a DAG file may take in a file zygote; beyond it each task imports for itself.
    pub preparse_limit: Duration,
    /// How long the base zygote may take to start.
    pub start_limit: Duration,
    /// How long a child's streams stay open after its end because another process holds them.
    pub drain_limit: Duration,
    /// Bytes that one request of a child may have.
    pub max_frame_bytes: usize,
}

impl HostConfig {
    /// The defaults.
    #[must_use]
    pub fn new(environment: Environment, home: impl Into<PathBuf>) -> Self {
        Self {
            environment,
            home: home.into(),
            env: inherited_env(),
            preparse: true,
            file_zygote_max_age: Duration::from_mins(1),
            file_zygote_max_forks: 1_000,
            file_zygote_idle: Duration::from_mins(1),
            file_zygotes_max: 32,
            preparse_limit: Duration::from_secs(45),
            start_limit: Duration::from_mins(2),
            drain_limit: Duration::from_secs(2),
            max_frame_bytes: frame::MAX_FRAME_BYTES,
        }
    }
}

/// This process's environment without what user code must not see: Gust's own settings, the metastore's address and
/// keys, and what would change how Python works.
#[must_use]
pub fn inherited_env() -> BTreeMap<String, String> {
    const HIDDEN: &[&str] = &[
        "GUST_",
        "AIRFLOW__DATABASE__",
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN",
        "AIRFLOW__API__",
        "AIRFLOW__API_AUTH__",
        "AIRFLOW__CELERY__",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHOME",
    ];
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !HIDDEN.iter().any(|hidden| name.starts_with(hidden)))
        .collect()
}

/// A file zygote used within this time keeps its place.
const RECENT: Duration = Duration::from_secs(5);

/// A task to run.
#[derive(Debug, Clone)]
pub struct SpawnTask {
    /// Folder of the bundle version; its content must not change.
    pub bundle_path: PathBuf,
    /// What the task is told first. `dag_rel_path` and `bundle_info.name` say which file of the bundle.
    pub startup: StartupDetails,
    /// Additions to the host's environment for this child.
    pub env: BTreeMap<String, String>,
}

/// Runs Python children. Cheap to clone; the last one dropped ends all of them.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    config: HostConfig,
    package: PathBuf,
    base: AsyncMutex<Option<Arc<Zygote>>>,
    files: Mutex<HashMap<FileKey, Arc<Slot>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("config", &self.config).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FileKey {
    bundle_path: PathBuf,
    bundle_name: String,
    rel_path: String,
}

/// The place of one file's zygote. Its lock is held while the zygote starts, so that tasks of the same file wait for
/// one import and tasks of other files do not.
struct Slot {
    state: AsyncMutex<SlotState>,
    used: Mutex<Instant>,
}

enum SlotState {
    Empty,
    Serving {
        zygote: Arc<Zygote>,
        born: Instant,
        forks: u32,
    },
    /// Each task imports for itself, until it is tried again.
    Refused {
        since: Instant,
    },
}

impl Host {
    /// Prepares the home folder. Python starts with the first child, or with [`Host::warm_up`].
    ///
    /// # Errors
    /// [`Error::Io`] where the home folder cannot be written.
    pub fn new(mut config: HostConfig) -> Result<Self, Error> {
        config.home = absolute(&config.home)?;
        let home = &config.home;
        let airflow_home = home.join("airflow");
        std::fs::create_dir_all(&airflow_home)
            .map_err(Error::io(format!("making {}", airflow_home.display())))?;
        let package = embedded::write_package(home)?;
        let inner = Arc::new(Inner { config, package, base: AsyncMutex::default(), files: Mutex::default() });
        if tokio::runtime::Handle::try_current().is_ok() {
            tokio::spawn(end_idle_zygotes(Arc::downgrade(&inner)));
        }
        Ok(Self { inner })
    }

    /// Starts the base zygote now, so that the first task does not wait for Python's imports.
    ///
    /// # Errors
    /// [`Error::ZygoteStart`] or [`Error::WrongEnvironment`].
    pub async fn warm_up(&self) -> Result<(), Error> {
        self.base().await.map(drop)
    }

    /// Starts a task. Its events begin to flow at once.
    ///
    /// # Errors
    /// As [`Host::warm_up`], and [`Error::Fork`] where the system has no room for another process.
    pub async fn spawn_task(&self, task: SpawnTask) -> Result<Child, Error> {
        let SpawnTask { bundle_path, mut startup, env } = task;
        let key = FileKey {
            bundle_path: absolute(&bundle_path)?,
            bundle_name: startup.bundle_info.name.clone(),
            rel_path: startup.dag_rel_path.clone(),
        };
        // The folder given is the version. Told of one, the SDK would write lock files against a bundle manager's
        // clean-up that does not exist here.
        startup.bundle_info.version = None;
        let first = ToTask::StartupDetails(startup);
        if self.inner.config.preparse
            && let Some(zygote) = self.file_zygote(&key).await?
        {
            let order = Order {
                kind: Kind::Task,
                env: env.clone(),
                bundle_name: key.bundle_name.clone(),
                bundle_path: String::new(),
                rel_path: key.rel_path.clone(),
            };
            match Child::start(&zygote, &order, Some(&first), self.limits()).await {
                Err(Error::ZygoteGone) => {
                    debug!(file = key.rel_path, "a file zygote ended just now; forking from the base one");
                }
                started => return started,
            }
        }
        self.spawn(Kind::Task, &key.bundle_path, &key.bundle_name, &key.rel_path, env, Some(&first)).await
    }

    /// Starts a child of the base zygote, once more where that one has just died.
    pub(crate) async fn spawn<T: serde::Serialize>(
        &self,
        kind: Kind,
        bundle_path: &Path,
        bundle_name: &str,
        rel_path: &str,
        env: BTreeMap<String, String>,
        first: Option<&T>,
    ) -> Result<Child, Error> {
        let order = Order {
            kind,
            env,
            bundle_name: bundle_name.to_owned(),
            bundle_path: if bundle_path.as_os_str().is_empty() {
                String::new()
            } else {
                path_text(&absolute(bundle_path)?)?
            },
            rel_path: rel_path.to_owned(),
        };
        let base = self.base().await?;
        match Child::start(&base, &order, first, self.limits()).await {
            Err(Error::ZygoteGone) => Child::start(&self.base().await?, &order, first, self.limits()).await,
            started => started,
        }
    }

    fn limits(&self) -> Limits {
        let config = &self.inner.config;
        Limits { frame_bytes: config.max_frame_bytes, drain: config.drain_limit }
    }

    async fn base(&self) -> Result<Arc<Zygote>, Error> {
        let mut base = self.inner.base.lock().await;
        if let Some(zygote) = base.as_ref().filter(|zygote| !zygote.is_gone()) {
            return Ok(Arc::clone(zygote));
        }
        if base.take().is_some() {
            warn!("the Python base zygote has ended; starting another");
        }
        let zygote = self.start_base().await?;
        *base = Some(Arc::clone(&zygote));
        Ok(zygote)
    }

    async fn start_base(&self) -> Result<Arc<Zygote>, Error> {
        let config = &self.inner.config;
        let python = &config.environment.python;
        let started = Instant::now();
        let (ours, theirs) =
            StdUnixStream::pair().map_err(Error::io("making the zygote's control socket"))?;
        let mut child = tokio::process::Command::new(python)
            .arg(self.inner.package.join("start.py"))
            .env_clear()
            .envs(env::child_env(config))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C at the terminal is for the supervisor, which then drains.
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("starting {}", python.display())))?;
        let words = Arc::new(Mutex::new(VecDeque::new()));
        let stderr = child.stderr.take().map(|stream| tokio::spawn(log_lines(stream, Arc::clone(&words))));
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(log_lines(stdout, Arc::clone(&words)));
        }
        let (zygote, ready) = Zygote::connect(ours)?;
        let told = tokio::time::timeout(config.start_limit, ready).await;
        let failed = |reason: String| Error::ZygoteStart { python: python.clone(), reason };
        let word = match told {
            Ok(Ok(word)) => word,
            Ok(Err(_)) => {
                drop(zygote);
                drop(child.wait().await);
                if let Some(stderr) = stderr {
                    drop(stderr.await);
                }
                let words = words.lock().unwrap_or_else(PoisonError::into_inner);
                return Err(failed(words.iter().cloned().collect::<Vec<_>>().join("\n")));
            }
            Err(_) => {
                drop(child.kill().await);
                return Err(failed(format!("no answer within {} s", config.start_limit.as_secs())));
            }
        };
        tokio::spawn(async move {
            match child.wait().await {
                Ok(status) if status.success() => debug!("the Python base zygote ended"),
                Ok(status) => warn!(%status, "the Python base zygote ended"),
                Err(problem) => warn!(%problem, "the Python base zygote could not be waited for"),
            }
        });
        self.check_versions(&word)?;
        info!(pid = word.pid, took_ms = started.elapsed().as_millis(), "the Python base zygote is ready");
        Ok(zygote)
    }

    fn check_versions(&self, word: &Ready) -> Result<(), Error> {
        if word.sdk_version == SDK_VERSION && word.api_version == SCHEMA_VERSION {
            return Ok(());
        }
        let config = &self.inner.config;
        Err(Error::WrongEnvironment {
            python: config.environment.python.clone(),
            found: format!(
                "it has task SDK {} with protocol {}, and Gust speaks {SCHEMA_VERSION}",
                word.sdk_version, word.api_version
            ),
            sdk: SDK_VERSION,
            core: CORE_VERSION,
            lock: env::write_lock(&config.home)?,
        })
    }

    /// The file's zygote, started where there is none, or `None` where the file must be imported by each task.
    async fn file_zygote(&self, key: &FileKey) -> Result<Option<Arc<Zygote>>, Error> {
        let config = &self.inner.config;
        let Some(slot) = self.slot(key) else { return Ok(None) };
        let mut state = slot.state.lock().await;
        slot.touch();
        match &mut *state {
            SlotState::Serving { zygote, born, forks }
                if !zygote.is_gone()
                    && born.elapsed() < config.file_zygote_max_age
                    && *forks < config.file_zygote_max_forks =>
            {
                *forks += 1;
                return Ok(Some(Arc::clone(zygote)));
            }
            SlotState::Refused { since } if since.elapsed() < config.file_zygote_max_age => return Ok(None),
            _ => {}
        }
        // Children of the old zygote keep it alive until they have ended.
        *state = SlotState::Empty;
        let Some(zygote) = self.start_file_zygote(key).await? else {
            *state = SlotState::Refused { since: Instant::now() };
            return Ok(None);
        };
        *state = SlotState::Serving { zygote: Arc::clone(&zygote), born: Instant::now(), forks: 1 };
        Ok(Some(zygote))
    }

    /// The file's place, unless all are taken by files that are in use as well: starting zygotes only to end them again
    /// costs more than importing in the task.
    fn slot(&self, key: &FileKey) -> Option<Arc<Slot>> {
        let mut files = self.inner.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = files.get(key) {
            return Some(Arc::clone(slot));
        }
        if files.len() >= self.inner.config.file_zygotes_max.max(1) {
            let (oldest, slot) = files.iter().min_by_key(|(_, slot)| slot.last_used())?;
            if slot.last_used().elapsed() < RECENT {
                return None;
            }
            let oldest = oldest.clone();
            files.remove(&oldest);
        }
        let slot =
            Arc::new(Slot { state: AsyncMutex::new(SlotState::Empty), used: Mutex::new(Instant::now()) });
        files.insert(key.clone(), Arc::clone(&slot));
        Some(slot)
    }

    async fn start_file_zygote(&self, key: &FileKey) -> Result<Option<Arc<Zygote>>, Error> {
        let base = self.base().await?;
        let (ours, theirs) =
            StdUnixStream::pair().map_err(Error::io("making the zygote's control socket"))?;
        let order = Order {
            kind: Kind::File,
            env: BTreeMap::new(),
            bundle_name: key.bundle_name.clone(),
            bundle_path: path_text(&key.bundle_path)?,
            rel_path: key.rel_path.clone(),
        };
        let (zygote, ready) = Zygote::connect(ours)?;
        let forked = match base.fork(&order, vec![theirs.into()]).await {
            Ok(forked) => forked,
            Err(problem) => {
                warn!(%problem, file = key.rel_path, "no zygote for this file; its tasks import it themselves");
                return Ok(None);
            }
        };
        match tokio::time::timeout(self.inner.config.preparse_limit, ready).await {
            Ok(Ok(Ready { refused: None, .. })) => Ok(Some(zygote)),
            Ok(Ok(Ready { refused: Some(reason), .. })) => {
                debug!(file = key.rel_path, reason, "the file is imported by each of its tasks");
                Ok(None)
            }
            Ok(Err(_)) => {
                debug!(file = key.rel_path, "the file's zygote died while importing it");
                Ok(None)
            }
            Err(_) => {
                base.kill(forked.pid, nix::sys::signal::Signal::SIGKILL);
                warn!(file = key.rel_path, "importing the file takes too long for a zygote of its own");
                Ok(None)
            }
        }
    }
}

impl Slot {
    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last_used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing would be lost by forgetting this zygote now.
    fn is_idle(&self, limit: Duration) -> bool {
        let Ok(state) = self.state.try_lock() else { return false };
        let busy = matches!(&*state, SlotState::Serving { zygote, .. } if zygote.load() > 0);
        !busy && self.last_used().elapsed() >= limit
    }
}

/// Memory counts while nothing runs: zygotes of files without work end.
async fn end_idle_zygotes(inner: Weak<Inner>) {
    loop {
        let Some(limit) = inner.upgrade().map(|inner| inner.config.file_zygote_idle) else { return };
        tokio::time::sleep((limit / 4).max(Duration::from_millis(100))).await;
        let Some(inner) = inner.upgrade() else { return };
        let mut files = inner.files.lock().unwrap_or_else(PoisonError::into_inner);
        // A slot somebody holds right now is about to be used.
        files.retain(|_, slot| Arc::strong_count(slot) > 1 || !slot.is_idle(limit));
    }
}

/// Children have working directories of their own.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::io(format!("finding {}", path.display())))
}

fn path_text(path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::io(format!("using the bundle folder {}", path.display()))(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "its name is not UTF-8, which Python's side of the protocol needs",
        ))
    })
}

/// Passes a zygote's own output on to the process log and keeps the end of it for an error.
async fn log_lines<R: AsyncRead + Unpin>(stream: R, last: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        debug!(target: "gust_python_host::zygote", "{line}");
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == 40 {
            last.pop_front();
        }
        last.push_back(line);
    }
}
