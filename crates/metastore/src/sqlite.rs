//! SQLite: one writer at a time, several readers beside it, every commit on the disk before it is acknowledged.

use std::time::Duration;

use gust_ports::{MetastoreError, metastore::TxMode};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{connection::Connection, dialect::Dialect, error::translate, store::Options};

/// How long a statement waits for the lock of another process before it counts as lost.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Prepared statements kept on each connection.
const STATEMENT_CACHE: usize = 400;

/// Pages in the write-ahead log before a commit folds them into the file, which takes longer than other commits; and
/// the bytes to which the log is cut back after that.
const CHECKPOINT_PAGES: &str = "4000";
const JOURNAL_LIMIT: &str = "67108864";

/// Pages kept in memory on the writer, and on each reader, in KiB (SQLite reads a negative `cache_size` so).
const WRITER_CACHE: &str = "-8192";
const READER_CACHE: &str = "-2048";

/// The file and the connections to it. The writer's pool holds one connection and serves those who wait in turn, so
/// that transactions of this process never meet SQLite's own, unfair, waiting.
pub(crate) struct SqliteStore {
    writer: SqlitePool,
    reader: SqlitePool,
    version: String,
}

impl SqliteStore {
    pub(crate) async fn connect(url: &str, options: &Options) -> Result<Self, MetastoreError> {
        let failed = |error| translate(Dialect::Sqlite, error);
        let connect: SqliteConnectOptions = url.parse().map_err(failed)?;
        if connect.get_filename().to_string_lossy().is_empty() || url.contains(":memory:") {
            return Err(MetastoreError::Refused(format!(
                "{url:?} names no file; a SQLite metastore is given as sqlite:///path/to/gust.db"
            )));
        }
        let connect = connect
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .statement_cache_capacity(STATEMENT_CACHE);
        let pool = || {
            SqlitePoolOptions::new()
                .acquire_timeout(options.acquire_timeout)
                // A file's connection does not go stale, and opening one again would prepare every statement anew.
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        // The writer comes first: it makes the file and its journal mode, which readers then find.
        let writer = pool()
            .max_connections(1)
            .connect_with(
                connect
                    .clone()
                    .pragma("cache_size", WRITER_CACHE)
                    .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
                    .pragma("journal_size_limit", JOURNAL_LIMIT),
            )
            .await
            .map_err(failed)?;
        let reader = pool()
            .max_connections(options.max_connections.max(1))
            .connect_with(connect.pragma("cache_size", READER_CACHE).pragma("query_only", "on"))
            .await
            .map_err(failed)?;
        let version =
            sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&reader).await.map_err(failed)?;
        Ok(Self { writer, reader, version })
    }

    pub(crate) fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    pub(crate) fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    pub(crate) async fn begin(&self, mode: TxMode) -> Result<Connection, MetastoreError> {
        let begun = match mode {
            TxMode::Read => self.reader.begin().await,
            TxMode::Write => self.writer.begin_with("BEGIN IMMEDIATE").await,
        };
        begun.map(Connection::Sqlite).map_err(|error| translate(Dialect::Sqlite, error))
    }

    pub(crate) fn describe(&self) -> String {
        format!("SQLite {} WAL synchronous=FULL", self.version)
    }

    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}
