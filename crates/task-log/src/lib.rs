//! Where the log of a try lies, and how it is read back (DESIGN §5).
//!
//! A try's log is a sequence of create-only objects, `{epoch}-{seq}[-end].jsonl.zst` under the try's prefix; the name
//! of the last one says that it is the last. A worker writes them, the reaper closes what a dead worker left open, and
//! readers merge them by epoch and sequence, mark a gap as a gap, and follow a running task by position.

mod chunk;
mod layout;
mod reader;

pub use chunk::{ChunkError, MAX_CHUNK_BYTES, decode_chunk, encode_chunk};
pub use layout::{ChunkName, TryLog};
pub use reader::{LogLine, LogPage, LogPosition, ReadError, read_log};
