//! The metastore over SQL: SQLite for one machine, PostgreSQL for several, behind [`gust_ports::Metastore`]; the keys
//! that seal secrets at rest; and, on PostgreSQL, wake-ups between processes and a task queue that reads the metastore.
//!
//! The same statements serve both databases; `dialect` holds what differs. One file a trait stands in `rows`.

mod connection;
pub mod crypto;
mod dialect;
mod error;
mod migrate;
mod postgres;
mod queue;
mod rows;
mod sqlite;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(all(test, feature = "testing"))]
mod tests;
mod wakeups;

pub use crypto::{KeyError, Keyring};
pub use migrate::SchemaStatus;
pub use queue::MetastoreQueue;
pub use store::{Options, SqlMetastore};
pub use wakeups::PgWakeups;
