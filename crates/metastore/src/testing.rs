//! Metastores for tests: fresh, migrated and empty each time, gone when dropped.
//!
//! PostgreSQL is started once a test process, or once a run of nextest, on a free loopback port, as a user other than
//! root; every test gets a database of its own, copied from a migrated template. Where its programs are missing a test says that it is skipped,
//! and fails under `CI`.

mod server;

use std::sync::Arc;

use gust_ports::Metastore;
use tempfile::TempDir;

use crate::{Options, SqlMetastore};

pub use server::postgres_url;

/// A metastore for one test.
#[derive(Debug)]
pub struct Backend {
    /// The metastore, migrated and empty.
    pub store: Arc<dyn Metastore>,
    /// The same, for what only the one over SQL does.
    pub sql: Arc<SqlMetastore>,
    /// How another process would connect to it.
    pub url: String,
    /// Removed on drop.
    _folder: Option<TempDir>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        if !self.url.starts_with("postgres") {
            return;
        }
        let url = std::mem::take(&mut self.url);
        // A runtime cannot wait inside another one, so that a thread of its own waits; a database that stays is no
        // failure, since it goes with the server.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(server::drop_database(&url)))
        });
        let _ = dropping.join();
    }
}

/// A SQLite metastore in a folder of its own.
///
/// # Panics
/// If it cannot be made, which fails the test.
#[expect(clippy::expect_used, reason = "a test that cannot set itself up has failed")]
pub async fn sqlite() -> Backend {
    let folder = tempfile::tempdir().expect("a folder for the database");
    let url = format!("sqlite://{}", folder.path().join("gust.db").display());
    let sql = SqlMetastore::connect(&url, Options::default()).await.expect("SQLite opens");
    sql.migrate().await.expect("the schema is made");
    let sql = Arc::new(sql);
    Backend { store: Arc::clone(&sql) as Arc<dyn Metastore>, sql, url, _folder: Some(folder) }
}

/// A PostgreSQL metastore in a database of its own; `None`, after saying why, where PostgreSQL is not installed.
///
/// # Panics
/// If it cannot be made, or under `CI` if PostgreSQL is not installed, which fails the test.
#[expect(clippy::expect_used, reason = "a test that cannot set itself up has failed")]
pub async fn postgres() -> Option<Backend> {
    let url = postgres_url().await?;
    let options = Options { max_connections: 6, ..Options::default() };
    let sql = SqlMetastore::connect(&url, options).await.expect("PostgreSQL answers");
    let sql = Arc::new(sql);
    Some(Backend { store: Arc::clone(&sql) as Arc<dyn Metastore>, sql, url, _folder: None })
}
