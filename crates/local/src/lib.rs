//! Gust without AWS: a folder as object store, a queue and wake-ups within one process, and a watch on a folder of
//! DAG files.

mod channel_queue;
mod folder_store;
mod wakeups;
mod watch;

pub use channel_queue::ChannelQueue;
pub use folder_store::FolderStore;
pub use wakeups::ChannelWakeups;
pub use watch::{FolderWatch, WatchError};
