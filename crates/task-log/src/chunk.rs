use std::io::Read as _;

use bytes::Bytes;
use thiserror::Error;

/// How many bytes of lines a chunk may hold. A larger one is not ours, or is meant to fill the reader's memory.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024 * 1024;

/// Log text compresses well at any level; this one costs less than a millisecond a megabyte.
const LEVEL: i32 = 1;

/// Why a chunk cannot be made or read.
#[derive(Debug, Error)]
pub enum ChunkError {
    /// The bytes are no zstd frame, or a damaged one.
    #[error("it is not a whole zstd frame: {0}")]
    Damaged(#[from] std::io::Error),
    /// It unpacks to more than a chunk may hold.
    #[error("it unpacks to more than {MAX_CHUNK_BYTES} bytes")]
    TooLarge,
}

/// Packs lines, each ended by a newline.
///
/// # Errors
/// [`ChunkError::TooLarge`] for more than [`MAX_CHUNK_BYTES`].
pub fn encode_chunk(lines: &[u8]) -> Result<Bytes, ChunkError> {
    if lines.len() > MAX_CHUNK_BYTES {
        return Err(ChunkError::TooLarge);
    }
    Ok(zstd::stream::encode_all(lines, LEVEL)?.into())
}

/// Unpacks what [`encode_chunk`] made.
///
/// # Errors
/// [`ChunkError`] when it is damaged or too large.
pub fn decode_chunk(packed: &[u8]) -> Result<Vec<u8>, ChunkError> {
    let mut lines = Vec::new();
    let limit = MAX_CHUNK_BYTES as u64 + 1;
    zstd::stream::Decoder::with_buffer(packed)?.take(limit).read_to_end(&mut lines)?;
    if lines.len() > MAX_CHUNK_BYTES { Err(ChunkError::TooLarge) } else { Ok(lines) }
}
