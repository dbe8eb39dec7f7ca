//! The traits behind which every effect of Gust stands: the metastore, the task queue, the object store, wake-ups, the
//! clock, ids, sleeping and spawning. Schedulers, workers and pages are written against these; only composition roots
//! name adapters, and a simulation supplies its own.

mod bundle;
mod cipher;
mod environment;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
pub mod metastore;
mod object_store;
mod queue;
mod wakeup;

pub use bundle::{BundleError, BundleSource, DagParser, NextRunQuestion, ParseJob, ParsedFile, ParserError};
pub use cipher::{Cipher, CipherError};
pub use environment::{Clock, Ids, RandomIds, Spawner, SystemClock, TokioSpawner};
pub use metastore::{Metastore, MetastoreError, Tx};
pub use object_store::{ObjectKey, ObjectMeta, ObjectStore, ObjectStoreError, PutOutcome};
pub use queue::{Delivery, QueueError, Receipt, TaskQueue};
pub use wakeup::{Wake, WakeStream, Wakeups};
