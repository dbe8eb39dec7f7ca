//! Migrations: numbered, forward only, never edited once released, one folder a database.

use gust_ports::MetastoreError;
use sqlx::{
    PgPool, SqlitePool,
    migrate::{MigrateError, Migrator},
};

use crate::{dialect::Dialect, error::translate};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// At which migration a schema is, and which one this version needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaStatus {
    /// The migrations that were run, in order.
    pub applied: Vec<i64>,
    /// Those that this version knows, in order.
    pub known: Vec<i64>,
}

impl SchemaStatus {
    /// Whether the schema is the one that this version works with.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.applied == self.known
    }

    /// The migrations that `migrate` would run.
    #[must_use]
    pub fn pending(&self) -> Vec<i64> {
        self.known.iter().filter(|version| !self.applied.contains(version)).copied().collect()
    }

    /// # Errors
    /// [`MetastoreError::Schema`] if the schema is another than this version's.
    pub fn ensure_current(&self) -> Result<(), MetastoreError> {
        if self.is_current() {
            return Ok(());
        }
        Err(MetastoreError::Schema { found: name(&self.applied), needed: name(&self.known) })
    }
}

fn name(versions: &[i64]) -> String {
    versions.last().map_or_else(|| "no migration".to_owned(), |last| format!("migration {last}"))
}

/// Runs what is pending in one write transaction: whoever comes second waits for it, and finds nothing left to do.
pub(crate) async fn sqlite(writer: &SqlitePool) -> Result<(), MetastoreError> {
    let failed = |error| translate(Dialect::Sqlite, error);
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    SQLITE.run(&mut *tx).await.map_err(|error| migration_failed(Dialect::Sqlite, error))?;
    tx.commit().await.map_err(failed)
}

/// Runs what is pending under the migrator's advisory lock.
pub(crate) async fn postgres(pool: &PgPool) -> Result<(), MetastoreError> {
    POSTGRES.run(pool).await.map_err(|error| migration_failed(Dialect::Postgres, error))
}

fn migration_failed(dialect: Dialect, error: MigrateError) -> MetastoreError {
    match error {
        MigrateError::Execute(error) => translate(dialect, error),
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            MetastoreError::Refused(format!(
                "the schema is at migration {version}, which this version of Gust does not know: use a newer one"
            ))
        }
        MigrateError::VersionMismatch(version) => MetastoreError::Refused(format!(
            "migration {version} was run with another text than this version's: the schema is not Gust's own"
        )),
        other => MetastoreError::Refused(other.to_string()),
    }
}

pub(crate) async fn sqlite_status(reader: &SqlitePool) -> Result<SchemaStatus, MetastoreError> {
    let failed = |error| translate(Dialect::Sqlite, error);
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')")
            .fetch_one(reader)
            .await
            .map_err(failed)?;
    let applied = if exists {
        sqlx::query_scalar(APPLIED).fetch_all(reader).await.map_err(failed)?
    } else {
        Vec::new()
    };
    Ok(SchemaStatus { applied, known: known(&SQLITE) })
}

pub(crate) async fn postgres_status(pool: &PgPool) -> Result<SchemaStatus, MetastoreError> {
    let failed = |error| translate(Dialect::Postgres, error);
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .persistent(false)
        .fetch_one(pool)
        .await
        .map_err(failed)?;
    let applied = if exists {
        sqlx::query_scalar(APPLIED).persistent(false).fetch_all(pool).await.map_err(failed)?
    } else {
        Vec::new()
    };
    Ok(SchemaStatus { applied, known: known(&POSTGRES) })
}

const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";

fn known(migrator: &Migrator) -> Vec<i64> {
    migrator.iter().map(|migration| migration.version).collect()
}
