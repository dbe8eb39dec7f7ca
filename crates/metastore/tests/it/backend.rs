//! The metastores that the behaviours are run on.

use std::{any::Any, sync::Arc};

use gust_metastore::testing;
use gust_ports::{Metastore, SystemClock, Tx, memory::MemoryMetastore, metastore::TxMode};

/// A fresh, empty metastore.
pub struct Backend {
    pub store: Arc<dyn Metastore>,
    /// What has to live as long as the store: its folder, its server.
    _keep: Box<dyn Any + Send + Sync>,
}

impl Backend {
    pub async fn write(&self) -> Box<dyn Tx> {
        self.store.begin(TxMode::Write).await.unwrap()
    }

    pub async fn read(&self) -> Box<dyn Tx> {
        self.store.begin(TxMode::Read).await.unwrap()
    }
}

/// The one in memory, on the machine's clock.
pub async fn memory() -> Option<Backend> {
    let store = MemoryMetastore::new(Arc::new(SystemClock::default()));
    Some(Backend { store: Arc::new(store), _keep: Box::new(()) })
}

/// SQLite in a folder of its own.
pub async fn sqlite() -> Option<Backend> {
    let backend = testing::sqlite().await;
    Some(Backend { store: backend.store.clone(), _keep: Box::new(backend) })
}

/// PostgreSQL in a database of its own; `None` where it is not installed.
pub async fn postgres() -> Option<Backend> {
    let backend = testing::postgres().await?;
    Some(Backend { store: backend.store.clone(), _keep: Box::new(backend) })
}
