//! The ports in memory, for tests and for simulation. The metastore behaves as PostgreSQL does under READ COMMITTED:
//! row locks, waits, deadlocks and lost updates are all there, and every wait is fair and follows from the calls alone.
//!
//! `table` holds versioned rows, `locks` who holds and who waits, `transaction` what a statement may see and
//! do; one file a row trait stands upon them.

mod admission;
mod assets;
mod clock;
mod faults;
mod ids;
mod listing;
mod locks;
mod object_store;
mod queue;
mod registry;
mod runs;
mod secrets;
mod table;
mod tables;
mod task_instances;
#[cfg(test)]
mod tests;
mod transaction;
mod wakeups;
mod work;
mod xcoms;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use gust_model::record::Timestamp;

pub use clock::ManualClock;
pub use faults::{Fault, FaultHook, FaultPoint, NoFaults};
pub use ids::SequentialIds;
pub use object_store::MemoryObjectStore;
pub use queue::MemoryQueue;
pub use wakeups::MemoryWakeups;

use self::transaction::{Shared, Transaction};
use crate::{Clock, Metastore, MetastoreError, Tx, metastore::TxMode};

/// A metastore in memory. Clones share their content.
#[derive(Clone)]
pub struct MemoryMetastore {
    shared: Arc<Shared>,
}

impl MemoryMetastore {
    /// An empty metastore on `clock`, in which nothing goes wrong.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_faults(clock, Arc::new(NoFaults))
    }

    /// An empty metastore on `clock`, in which `faults` decides what goes wrong.
    #[must_use]
    pub fn with_faults(clock: Arc<dyn Clock>, faults: Arc<dyn FaultHook>) -> Self {
        Self { shared: Arc::new(Shared::new(clock, faults)) }
    }
}

impl fmt::Debug for MemoryMetastore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryMetastore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Metastore for MemoryMetastore {
    async fn begin(&self, mode: TxMode) -> Result<Box<dyn Tx>, MetastoreError> {
        Ok(Box::new(Transaction::begin(self.shared.clone(), mode).await?))
    }

    async fn check(&self) -> Result<(), MetastoreError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "in memory, gone with the process".to_owned()
    }
}

#[async_trait]
impl Tx for Transaction {
    async fn now(&mut self) -> Result<Timestamp, MetastoreError> {
        self.statement("now").await?;
        Ok(self.clock_now())
    }

    async fn commit(self: Box<Self>) -> Result<(), MetastoreError> {
        Transaction::commit(*self).await
    }

    async fn rollback(self: Box<Self>) -> Result<(), MetastoreError> {
        self.roll_back();
        Ok(())
    }
}
