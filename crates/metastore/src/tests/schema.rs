//! Migrations, and a schema that is another version's.

use gust_ports::{Metastore as _, MetastoreError, metastore::TxMode};

use super::fixtures;
use crate::{Options, SqlMetastore, testing};

async fn unmigrated(folder: &tempfile::TempDir) -> SqlMetastore {
    let url = format!("sqlite://{}", folder.path().join("gust.db").display());
    SqlMetastore::connect(&url, Options::default()).await.unwrap()
}

#[tokio::test]
async fn nothing_is_migrated_unasked_and_a_missing_schema_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let store = unmigrated(&folder).await;
    let error = store.begin(TxMode::Read).await.err().unwrap();
    assert!(matches!(error, MetastoreError::Schema { .. }), "{error}");
    assert!(error.to_string().contains("gust db migrate"), "{error}");
    assert_eq!(store.schema_status().await.unwrap().pending(), store.schema_status().await.unwrap().known);
    assert!(store.migrate().await.unwrap().is_current());
    store.check().await.unwrap();
    store.begin(TxMode::Write).await.unwrap().rollback().await.unwrap();
}

#[tokio::test]
async fn processes_that_migrate_at_once_on_sqlite_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b, c) = (unmigrated(&folder).await, unmigrated(&folder).await, unmigrated(&folder).await);
    let (a, b, c) = tokio::join!(a.migrate(), b.migrate(), c.migrate());
    assert!(a.unwrap().is_current() && b.unwrap().is_current() && c.unwrap().is_current());
}

#[tokio::test]
async fn processes_that_migrate_at_once_on_postgres_do_not_disturb_each_other() {
    let Some(backend) = testing::postgres().await else { return };
    let (a, b) = (backend.sql.migrate(), backend.sql.migrate());
    let (a, b) = tokio::join!(a, b);
    assert!(a.unwrap().is_current() && b.unwrap().is_current());
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let backend = testing::sqlite().await;
    let options: sqlx::sqlite::SqliteConnectOptions = backend.url.parse().unwrap();
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', 1, x'00', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let error = backend.store.check().await.unwrap_err();
    assert!(error.to_string().contains("migration 9999"), "{error}");
    let error = backend.sql.migrate().await.unwrap_err();
    assert!(error.to_string().contains("use a newer one"), "{error}");
}

#[tokio::test]
async fn it_says_what_it_is_and_how_durable() {
    let sqlite = testing::sqlite().await.store.describe();
    assert!(sqlite.starts_with("SQLite 3.") && sqlite.ends_with(" WAL synchronous=FULL"), "{sqlite}");
    let Some(backend) = testing::postgres().await else { return };
    let postgres = backend.store.describe();
    assert!(postgres.starts_with("PostgreSQL ") && postgres.contains(" synchronous_commit="), "{postgres}");
}

#[tokio::test]
async fn sqlite_is_set_to_survive_power_loss() {
    let backend = testing::sqlite().await;
    let crate::store::Database::Sqlite(store) = backend.sql.database() else { unreachable!("it is SQLite") };
    let pragma = |name: &'static str| async move {
        sqlx::query_scalar::<_, i64>(name).fetch_one(store.writer()).await.unwrap()
    };
    assert_eq!(pragma("PRAGMA synchronous").await, 2);
    assert_eq!(pragma("PRAGMA foreign_keys").await, 1);
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(store.writer()).await.unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn an_unknown_scheme_and_a_nameless_file_are_refused_by_name() {
    for url in ["mysql://host/db", "gust.db", "sqlite::memory:"] {
        let error = SqlMetastore::connect(url, Options::default()).await.unwrap_err();
        assert!(matches!(error, MetastoreError::Refused(_)), "{url}: {error}");
    }
}

#[tokio::test]
async fn statements_need_not_stay_prepared() {
    let Some(backend) = testing::postgres().await else { return };
    let options = Options { is_caching_statements: false, max_connections: 1, ..Options::default() };
    let store = SqlMetastore::connect(&backend.url, options).await.unwrap();
    let mut tx = store.begin(TxMode::Write).await.unwrap();
    tx.put_dag(&fixtures::dag("d")).await.unwrap();
    tx.commit().await.unwrap();
    let crate::store::Database::Postgres(postgres) = store.database() else {
        unreachable!("it is PostgreSQL")
    };
    let prepared: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
        .persistent(false)
        .fetch_one(postgres.pool())
        .await
        .unwrap();
    assert_eq!(prepared, 0);
}
