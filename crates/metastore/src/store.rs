//! The metastore itself: which database, which pools of connections, which schema.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use gust_model::record::Timestamp;
use gust_ports::{Clock, Metastore, MetastoreError, SystemClock, Tx, metastore::TxMode};

use crate::{
    connection::SqlTx,
    migrate::{self, SchemaStatus},
    postgres::PostgresStore,
    sqlite::SqliteStore,
    wakeups::PgWakeups,
};

/// How to connect.
#[derive(Clone)]
pub struct Options {
    /// How many connections to PostgreSQL, or readers of SQLite, this process may hold.
    pub max_connections: u32,
    /// How long to wait for a connection, or on SQLite for the writer's turn, before it counts as an outage. A
    /// database that sleeps at zero capacity takes about 15 seconds to wake.
    pub acquire_timeout: Duration,
    /// Whether statements stay prepared on a connection. Off for proxies that hand out another connection for every
    /// transaction.
    pub is_caching_statements: bool,
    /// The clock that is the database's on SQLite. PostgreSQL has its own.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 8,
            acquire_timeout: Duration::from_mins(1),
            is_caching_statements: true,
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("is_caching_statements", &self.is_caching_statements)
            .finish_non_exhaustive()
    }
}

/// Which database it is.
pub(crate) enum Database {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

/// The metastore over SQL.
pub struct SqlMetastore {
    database: Database,
    clock: Arc<dyn Clock>,
    is_caching: bool,
    /// Whether the schema was seen to be the right one. It only moves forward, by a person's command, so that it is
    /// looked at once.
    is_schema_known: AtomicBool,
}

impl fmt::Debug for SqlMetastore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqlMetastore").field(&self.describe()).finish()
    }
}

impl SqlMetastore {
    /// Connects to the database that `url` names: `sqlite:///path/to/file`, made if missing, or
    /// `postgres://user:password@host/database`. The schema is neither made nor looked at.
    ///
    /// # Errors
    /// [`MetastoreError::Unavailable`] if it does not answer, [`MetastoreError::Refused`] if the URL says nothing that
    /// this knows.
    pub async fn connect(url: &str, options: Options) -> Result<Self, MetastoreError> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        let database = match scheme {
            "sqlite" => Database::Sqlite(SqliteStore::connect(url, &options).await?),
            "postgres" | "postgresql" => Database::Postgres(PostgresStore::connect(url, &options).await?),
            other => {
                return Err(MetastoreError::Refused(format!(
                    "a metastore URL begins with sqlite:// or postgres://, not {other:?}"
                )));
            }
        };
        Ok(Self {
            database,
            clock: options.clock,
            is_caching: options.is_caching_statements,
            is_schema_known: AtomicBool::new(false),
        })
    }

    /// Brings the schema to the one that this version needs. Safe to run in several processes at once.
    pub async fn migrate(&self) -> Result<SchemaStatus, MetastoreError> {
        match &self.database {
            Database::Sqlite(store) => migrate::sqlite(store.writer()).await?,
            Database::Postgres(store) => migrate::postgres(store.pool()).await?,
        }
        self.schema_status().await
    }

    /// At which migration the schema is, and which one this version needs.
    pub async fn schema_status(&self) -> Result<SchemaStatus, MetastoreError> {
        match &self.database {
            Database::Sqlite(store) => migrate::sqlite_status(store.reader()).await,
            Database::Postgres(store) => migrate::postgres_status(store.pool()).await,
        }
    }

    /// Wake-ups between the processes that share a PostgreSQL; `None` on SQLite, which one machine's processes use and
    /// which has no way to tell them.
    pub async fn wakeups(&self) -> Result<Option<PgWakeups>, MetastoreError> {
        match &self.database {
            Database::Sqlite(_) => Ok(None),
            Database::Postgres(store) => PgWakeups::start(store.pool().clone()).await.map(Some),
        }
    }

    /// Gives the connections back and, on SQLite, folds the write-ahead log into the file. Transactions under way end
    /// first.
    pub async fn close(&self) {
        match &self.database {
            Database::Sqlite(store) => store.close().await,
            Database::Postgres(store) => store.pool().close().await,
        }
    }

    #[cfg(test)]
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    #[cfg(test)]
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    async fn check_schema_once(&self) -> Result<(), MetastoreError> {
        if self.is_schema_known.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.schema_status().await?.ensure_current()?;
        self.is_schema_known.store(true, Ordering::Relaxed);
        Ok(())
    }
}

#[async_trait]
impl Metastore for SqlMetastore {
    async fn begin(&self, mode: TxMode) -> Result<Box<dyn Tx>, MetastoreError> {
        self.check_schema_once().await?;
        let connection = match &self.database {
            Database::Sqlite(store) => store.begin(mode).await?,
            Database::Postgres(store) => store.begin(mode).await?,
        };
        Ok(Box::new(SqlTx::new(connection, mode, Arc::clone(&self.clock), self.is_caching)))
    }

    async fn check(&self) -> Result<(), MetastoreError> {
        self.schema_status().await?.ensure_current()
    }

    fn describe(&self) -> String {
        match &self.database {
            Database::Sqlite(store) => store.describe(),
            Database::Postgres(store) => store.describe(),
        }
    }
}

#[async_trait]
impl Tx for SqlTx {
    async fn now(&mut self) -> Result<Timestamp, MetastoreError> {
        self.clock_now().await
    }

    async fn commit(self: Box<Self>) -> Result<(), MetastoreError> {
        self.end(true).await
    }

    async fn rollback(self: Box<Self>) -> Result<(), MetastoreError> {
        self.end(false).await
    }
}
