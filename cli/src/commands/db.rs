//! `gust db …`

use clap::Subcommand;
use gust_config::Config;
use serde_json::json;
use sqlx::{Connection as _, Row as _};

use crate::{house::House, output::Out};

/// `gust db …`
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Bring the metastore's schema to the one that this version needs
    #[command(after_help = "Examples:
  gust db migrate
  gust db migrate --metastore postgres://gust:secret@db.example.com/gust")]
    Migrate,
    /// Check that the metastore answers and that its schema is the one needed
    #[command(after_help = "Example: gust db check && gust scheduler")]
    Check,
}

/// Runs a command.
///
/// # Errors
/// What went wrong, for people.
pub async fn run(command: DbCommand, config: Config, out: &mut Out) -> anyhow::Result<()> {
    refuse_airflow(&config).await?;
    let place = config.metastore.url.masked();
    let house = House::open(config).await?;
    let status = match command {
        DbCommand::Migrate => {
            let before = house.sql.schema_status().await?;
            let status = house.migrate().await?;
            let done = before.pending().len();
            out.say(&match done {
                0 => format!("{place} was up to date"),
                1 => format!("{place}: 1 migration was run"),
                _ => format!("{place}: {done} migrations were run"),
            })?;
            status
        }
        DbCommand::Check => {
            let status = house.sql.schema_status().await?;
            status.ensure_current()?;
            out.say(&format!("{place} is up to date"))?;
            status
        }
    };
    let schema = status.applied.last();
    if out.is_structured() {
        out.value(&json!({
            "metastore": place, "kind": house.store.describe(), "schema": schema, "is_current": status.is_current(),
        }))?;
    } else if let Some(schema) = schema {
        out.line(&format!("{}, schema at migration {schema}", house.store.describe()))?;
    }
    house.sql.close().await;
    Ok(())
}

/// Refuses a database which is a real Airflow's: an environment made for Airflow names it, and Gust's tables do not
/// belong there.
///
/// # Errors
/// When the database is Airflow's. One that does not answer is left to whoever opens it.
pub async fn refuse_airflow(config: &Config) -> anyhow::Result<()> {
    let url = config.metastore.url.expose();
    let is_airflows = if config.metastore.url.is_sqlite() { sqlite(url).await } else { postgres(url).await };
    anyhow::ensure!(
        !is_airflows,
        "the database {} is an Airflow's own (it has the table alembic_version); Gust needs a database of its own: \
         name one by --metastore or metastore.url",
        config.metastore.url.masked()
    );
    Ok(())
}

async fn sqlite(url: &str) -> bool {
    let Some(path) = url.strip_prefix("sqlite://") else { return false };
    let path = path.split('?').next().unwrap_or(path);
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).read_only(true);
    let Ok(mut connection) = sqlx::SqliteConnection::connect_with(&options).await else { return false };
    let query = "SELECT count(*) FROM sqlite_schema WHERE name = 'alembic_version'";
    let found = sqlx::query(query).fetch_one(&mut connection).await;
    found.is_ok_and(|row| row.try_get::<i64, _>(0).is_ok_and(|count| count > 0))
}

async fn postgres(url: &str) -> bool {
    let Ok(mut connection) = sqlx::PgConnection::connect(url).await else { return false };
    let query = "SELECT to_regclass('alembic_version') IS NOT NULL";
    let found = sqlx::query(query).fetch_one(&mut connection).await;
    found.is_ok_and(|row| row.try_get::<bool, _>(0).unwrap_or(false))
}
