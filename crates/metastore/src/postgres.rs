//! PostgreSQL: connections without state of their own, so that any of them, a proxy's too, serves any transaction.

use gust_ports::{MetastoreError, metastore::TxMode};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{connection::Connection, dialect::Dialect, error::translate, store::Options};

/// Prepared statements kept on each connection.
const STATEMENT_CACHE: usize = 400;

pub(crate) struct PostgresStore {
    pool: PgPool,
    description: String,
}

impl PostgresStore {
    pub(crate) async fn connect(url: &str, options: &Options) -> Result<Self, MetastoreError> {
        let failed = |error| translate(Dialect::Postgres, error);
        let connect: PgConnectOptions = url.parse().map_err(failed)?;
        let capacity = if options.is_caching_statements { STATEMENT_CACHE } else { 0 };
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections.max(1))
            .acquire_timeout(options.acquire_timeout)
            .connect_with(connect.application_name("gust").statement_cache_capacity(capacity))
            .await
            .map_err(failed)?;
        let (version, commit): (String, String) =
            sqlx::query_as("SELECT current_setting('server_version'), current_setting('synchronous_commit')")
                .persistent(options.is_caching_statements)
                .fetch_one(&pool)
                .await
                .map_err(failed)?;
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        Ok(Self { pool, description: format!("PostgreSQL {version} synchronous_commit={commit}") })
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A read sees one moment's state; a write sees what is committed as it goes and locks rows. Both are said at the
    /// transaction's beginning rather than set on the connection, which may serve somebody else next.
    pub(crate) async fn begin(&self, mode: TxMode) -> Result<Connection, MetastoreError> {
        let begin = match mode {
            TxMode::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            TxMode::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        };
        let tx = self.pool.begin_with(begin).await;
        tx.map(Connection::Postgres).map_err(|error| translate(Dialect::Postgres, error))
    }

    pub(crate) fn describe(&self) -> String {
        self.description.clone()
    }
}
