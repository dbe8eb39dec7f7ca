//! The house: the adapters that this configuration asks for, put behind their ports. The one place, with the services,
//! that names them.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use gust_bundle::{BundleCache, Limits};
use gust_config::Config;
use gust_local::{ChannelWakeups, FolderStore};
use gust_metastore::{Keyring, Options, SchemaStatus, SqlMetastore};
use gust_model::record::{DEFAULT_POOL, Pool};
use gust_ports::{
    BundleSource, Cipher, Clock, Ids, Metastore, MetastoreError, ObjectStore, RandomIds, SystemClock,
    Wakeups,
    metastore::{TxMode, transact},
};
use sha2::{Digest as _, Sha256};

/// Everything that a command or a service of this process stands on.
#[derive(Clone)]
pub struct House {
    /// What was configured.
    pub config: Arc<Config>,
    /// The metastore behind its port.
    pub store: Arc<dyn Metastore>,
    /// The same metastore, for what only SQL has: migrations.
    pub sql: Arc<SqlMetastore>,
    /// Bundles and task logs.
    pub objects: Arc<dyn ObjectStore>,
    /// Bundle versions unpacked on this machine.
    pub bundles: Arc<dyn BundleSource>,
    /// Who listens to what changed.
    pub wakeups: Arc<dyn Wakeups>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Fresh identifiers.
    pub ids: Arc<dyn Ids>,
    /// Seals Variables and Connections.
    pub cipher: Arc<dyn Cipher>,
}

impl House {
    /// Opens what the configuration names. The metastore's schema is neither made nor looked at.
    ///
    /// # Errors
    /// When a folder, a key or the metastore cannot be opened: what, and why.
    pub async fn open(config: Config) -> anyhow::Result<Self> {
        let home = config.gust.home.clone();
        make_private_folder(&home)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let options = Options {
            max_connections: config.metastore.pool_size + config.metastore.max_overflow,
            clock: Arc::clone(&clock),
            ..Options::default()
        };
        let url = config.metastore.url.expose();
        let sql = SqlMetastore::connect(url, options)
            .await
            .with_context(|| format!("opening the metastore {}", config.metastore.url.masked()))?;
        let sql = Arc::new(sql);
        let wakeups: Arc<dyn Wakeups> = match sql.wakeups().await? {
            Some(wakeups) => Arc::new(wakeups),
            None => Arc::new(ChannelWakeups::default()),
        };
        let folder = home.join("store");
        let objects: Arc<dyn ObjectStore> = Arc::new(
            FolderStore::open(&folder)
                .with_context(|| format!("opening the object store {}", folder.display()))?,
        );
        let bundles =
            Arc::new(BundleCache::new(home.join("cache/bundles"), Arc::clone(&objects), Limits::default()));
        let cipher: Arc<dyn Cipher> = Arc::new(keyring(&config)?);
        Ok(Self {
            config: Arc::new(config),
            store: Arc::clone(&sql) as Arc<dyn Metastore>,
            sql,
            objects,
            bundles,
            wakeups,
            clock,
            ids: Arc::new(RandomIds),
            cipher,
        })
    }

    /// Brings the schema to the one that this version needs, and makes the default pool.
    ///
    /// # Errors
    /// The metastore's.
    pub async fn migrate(&self) -> Result<SchemaStatus, MetastoreError> {
        let status = self.sql.migrate().await?;
        let slots = i32::try_from(self.config.core.default_pool_task_slot_count).unwrap_or(i32::MAX);
        transact(&*self.store, TxMode::Write, |tx| {
            Box::pin(async move {
                if tx.pools().await?.iter().all(|pool| pool.name.as_str() != DEFAULT_POOL) {
                    let pool = Pool {
                        name: DEFAULT_POOL.into(),
                        slots,
                        description: Some("Default pool".to_owned()),
                        include_deferred: false,
                    };
                    tx.put_pool(&pool).await?;
                }
                Ok::<_, MetastoreError>(())
            })
        })
        .await?;
        Ok(status)
    }

    /// The secret that signs API tokens: the configured one, or one that is made once and kept in the home folder.
    ///
    /// # Errors
    /// When it can neither be read nor made.
    pub fn token_secret(&self) -> anyhow::Result<Vec<u8>> {
        if let Some(secret) = &self.config.api_auth.jwt_secret {
            return Ok(secret.expose().as_bytes().to_vec());
        }
        let path = self.config.gust.home.join("keys/token-secret");
        load_or_create(&path, || {
            format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
        })
        .with_context(|| format!("the token secret {}", path.display()))
        .map(String::into_bytes)
    }

    /// How long a claim holds without renewal.
    #[must_use]
    pub fn lease_ttl(&self) -> Duration {
        (*self.config.scheduler.task_instance_heartbeat_timeout).min(LONGEST_LEASE)
    }
}

/// Airflow gives a silent task five minutes. A worker of Gust renews every few seconds and outlives an outage of the
/// metastore by its own grace, so a dead one is told from a busy one much sooner.
const LONGEST_LEASE: Duration = Duration::from_mins(1);

/// The keys for what is sealed at rest: the configured ones, or one that is made once and kept in the home folder.
fn keyring(config: &Config) -> anyhow::Result<Keyring> {
    if let Some(keys) = &config.core.fernet_key {
        let texts: Vec<String> = keys.keys().iter().map(key_text).collect();
        return Ok(Keyring::from_texts(&texts)?);
    }
    let path = config.gust.home.join("keys/metastore");
    if let Some(folder) = path.parent() {
        make_private_folder(folder)?;
    }
    Keyring::load_or_create(&path).with_context(|| format!("the encryption key {}", path.display()))
}

/// A key as the ring reads it. Its id follows from the key, so that it stays the same when other keys come or go.
fn key_text(key: &[u8; 32]) -> String {
    let digest = Sha256::digest(key);
    let id = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    format!("{id:08x}:{}", STANDARD_NO_PAD.encode(key))
}

fn load_or_create(path: &Path, make: impl FnOnce() -> String) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => anyhow::bail!("the file is empty; remove it, and a new one is made"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    make_private_folder(&folder)?;
    // Temporary files are readable by their owner alone, and a rename that does not replace keeps the first of two
    // processes that start at once.
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    file.write_all(make().as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(refused) => return Err(refused.error.into()),
    }
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

/// Makes a folder that nobody else may look into: it holds keys, logs and the database.
fn make_private_folder(folder: &Path) -> anyhow::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("protecting {}", folder.display()))?;
    }
    Ok(())
}
