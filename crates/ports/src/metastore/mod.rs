//! The metastore: the truth about DAGs, runs, task instances and everything that hangs on them (DESIGN §7).
//!
//! A [`Metastore`] begins transactions; a [`Tx`] is the sum of small traits, one a concern, whose methods are rows and
//! locks rather than decisions. What a claim, an advance or an admission is stands above this port, written once; so
//! PostgreSQL, SQLite and the in-memory metastore differ only in how they read, write and lock.
//!
//! Isolation is read committed with explicit row locks. SQLite gives more (one writer at a time), which nothing may
//! rely on.

mod assets;
mod filter;
mod graphs;
mod registry;
mod runs;
mod secrets;
mod task_instances;
mod work;
mod xcoms;

use std::fmt;

use async_trait::async_trait;
use futures::future::BoxFuture;
use gust_model::record::Timestamp;
use thiserror::Error;

pub use assets::{AssetEventFilter, AssetRows};
pub use filter::{DagFilter, DagRunFilter, Direction, Listing, Page, TaskInstanceFilter, TimeRange};
pub use graphs::{DagGraphs, GraphError, VersionGraph, read_graph};
pub use registry::{DagSort, RegistryRows};
pub use runs::{DagRunPatch, DagRunSort, LockWait, RunRows};
pub use secrets::SecretRows;
pub use task_instances::{
    ActiveTask, Candidate, CandidateQuery, Guard, LeasePatch, Renewal, TaskInstancePatch, TaskInstanceRows,
    TaskInstanceSort, TaskInstanceWrite,
};
pub use work::{Hitl, WorkRows};
pub use xcoms::{XComFilter, XComRows};

/// Why the metastore did not do what it was asked. What was not found is no error.
#[derive(Debug, Error)]
pub enum MetastoreError {
    /// The transaction lost against another one (serialization failure, deadlock, busy database) and left no trace.
    /// Running it again is right.
    #[error("the transaction lost against another one: {0}")]
    Conflict(String),
    /// The database cannot be reached, or refuses to write for now. Nothing is known about a commit under way.
    #[error("the metastore is unavailable: {0}")]
    Unavailable(String),
    /// A row that must be unique exists already.
    #[error("{0} exists already")]
    Exists(String),
    /// A stored value cannot be read: its column and what is wrong with it.
    #[error("the metastore holds a value that this version cannot read: {0}")]
    Unreadable(String),
    /// The database's schema is not the one that this version works with.
    #[error("the metastore's schema is at {found}, this version needs {needed}: run `gust db migrate`")]
    Schema {
        /// What it is at.
        found: String,
        /// What it must be at.
        needed: String,
    },
    /// Anything else: a statement that the database refuses.
    #[error("the metastore refused a statement: {0}")]
    Refused(String),
}

impl MetastoreError {
    /// Whether running the same transaction again at once is right.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }

    /// Whether it may work later without anybody mending anything.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// What a transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxMode {
    /// Reads one moment's state as far as the database gives it; never waits for writers.
    Read,
    /// Reads, locks and writes. SQLite begins it as the one writer.
    Write,
}

/// Begins transactions.
#[async_trait]
pub trait Metastore: Send + Sync + fmt::Debug {
    /// Begins a transaction. Dropping it without commit rolls it back.
    async fn begin(&self, mode: TxMode) -> Result<Box<dyn Tx>, MetastoreError>;

    /// Checks that it answers and that its schema is the one needed.
    async fn check(&self) -> Result<(), MetastoreError>;

    /// What it is and how durable, for people: `SQLite WAL synchronous=FULL`.
    fn describe(&self) -> String;
}

/// A transaction: the sum of the row traits.
#[async_trait]
pub trait Tx:
    RegistryRows + RunRows + TaskInstanceRows + XComRows + SecretRows + AssetRows + WorkRows + Send
{
    /// The database's clock now (not at the transaction's start: a lock wait may lie between), to the microsecond.
    async fn now(&mut self) -> Result<Timestamp, MetastoreError>;

    /// Makes everything durable.
    async fn commit(self: Box<Self>) -> Result<(), MetastoreError>;

    /// Undoes everything.
    async fn rollback(self: Box<Self>) -> Result<(), MetastoreError>;
}

/// How often [`transact`] runs a transaction that keeps losing.
const MAX_ATTEMPTS: usize = 12;

/// Runs `work` in a transaction and commits it; runs it again, a bounded number of times, when it lost against another
/// one. `work` must therefore have no effect outside the transaction. An error of `work` rolls back.
pub async fn transact<T, E>(
    store: &dyn Metastore,
    mode: TxMode,
    mut work: impl for<'t> FnMut(&'t mut dyn Tx) -> BoxFuture<'t, Result<T, E>> + Send,
) -> Result<T, E>
where
    T: Send,
    E: From<MetastoreError> + AsMetastoreError + Send,
{
    let mut attempt = 1;
    loop {
        let mut tx = store.begin(mode).await?;
        let error = match work(&mut *tx).await {
            Ok(value) => match tx.commit().await {
                Ok(()) => return Ok(value),
                Err(error) => E::from(error),
            },
            Err(error) => {
                // The rollback's own failure adds nothing: a dropped connection rolls back as well.
                let _ = tx.rollback().await;
                error
            }
        };
        let lost = error.as_metastore_error().is_some_and(MetastoreError::is_conflict);
        if !lost || attempt == MAX_ATTEMPTS {
            return Err(error);
        }
        attempt += 1;
        // The winner needs a turn; what it holds is released at its commit, which the next begin or lock waits for.
        tokio::task::yield_now().await;
    }
}

/// Lets [`transact`] see whether an error is a lost transaction.
pub trait AsMetastoreError {
    /// The metastore's error inside, if it is one.
    fn as_metastore_error(&self) -> Option<&MetastoreError>;
}

impl AsMetastoreError for MetastoreError {
    fn as_metastore_error(&self) -> Option<&MetastoreError> {
        Some(self)
    }
}
