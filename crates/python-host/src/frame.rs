//! Frames: a 4-byte big-endian length, then msgpack.
//!
//! Requests of a child are `[id, body, carrier]`, replies `[id, body]`, error replies `[id, nil, error]`, empty ones
//! `[id, nil]` (`airflow/sdk/execution_time/comms.py`).

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{Error, value};

/// Bytes that one frame of a child may have unless the host says otherwise.
pub const MAX_FRAME_BYTES: usize = 256 * 1024 * 1024;

/// A frame that a child sent.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestFrame {
    /// The number under which the child awaits the reply.
    pub id: i64,
    /// The message, a map with a `type`, as JSON.
    pub body: Value,
    /// W3C trace context of the task's span, where the child traces.
    pub carrier: Option<Value>,
}

/// Reads one frame's payload; `None` at a clean end of the stream.
///
/// # Errors
/// [`Error::FrameTooLarge`] for an announced size over `limit`, [`Error::MalformedFrame`] for an end inside a frame.
pub async fn read_payload<R: AsyncRead + Unpin>(
    from: &mut R,
    limit: usize,
) -> Result<Option<Vec<u8>>, Error> {
    let mut head = [0_u8; 4];
    let mut have = 0;
    while have < head.len() {
        let got = from.read(&mut head[have..]).await.map_err(Error::io("reading a frame's length"))?;
        if got == 0 {
            return if have == 0 { Ok(None) } else { Err(cut_off(have, head.len())) };
        }
        have += got;
    }
    let size = u32::from_be_bytes(head) as usize;
    if size > limit {
        return Err(Error::FrameTooLarge { size, limit });
    }
    // Memory follows the bytes that arrive, not the size that was announced.
    let mut payload = Vec::with_capacity(size.min(64 * 1024));
    from.take(size as u64).read_to_end(&mut payload).await.map_err(Error::io("reading a frame"))?;
    if payload.len() < size {
        return Err(cut_off(payload.len(), size));
    }
    Ok(Some(payload))
}

fn cut_off(have: usize, size: usize) -> Error {
    Error::MalformedFrame(format!("the stream ended after {have} of {size} bytes"))
}

/// Decodes what a child sent.
///
/// # Errors
/// [`Error::MalformedFrame`] says what is wrong.
pub fn decode_request(payload: &[u8]) -> Result<RequestFrame, Error> {
    let mut rest = payload;
    let decoded =
        rmpv::decode::read_value(&mut rest).map_err(|problem| Error::MalformedFrame(problem.to_string()))?;
    if !rest.is_empty() {
        return Err(Error::MalformedFrame(format!("{} bytes follow the message", rest.len())));
    }
    let rmpv::Value::Array(parts) = decoded else {
        return Err(Error::MalformedFrame("not an array of [id, body, carrier]".into()));
    };
    let mut parts = parts.into_iter();
    let id = parts.next().and_then(|id| id.as_i64());
    let body = parts.next();
    let (Some(id), Some(body)) = (id, body) else {
        return Err(Error::MalformedFrame("the array does not begin with an integer id and a body".into()));
    };
    let carrier = parts.next().filter(|carrier| !carrier.is_nil()).map(value::to_json);
    Ok(RequestFrame { id, body: value::to_json(body), carrier })
}

/// Encodes one frame with its length.
///
/// # Errors
/// [`Error::MalformedFrame`] where the value cannot be written as msgpack, [`Error::FrameTooLarge`] over 4 GiB.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0_u8; 4];
    let mut serializer = rmp_serde::Serializer::new(&mut frame).with_struct_map().with_human_readable();
    message.serialize(&mut serializer).map_err(|problem| Error::MalformedFrame(problem.to_string()))?;
    let size = frame.len() - 4;
    let head = u32::try_from(size)
        .map_err(|_| Error::FrameTooLarge { size, limit: u32::MAX as usize })?
        .to_be_bytes();
    frame[..4].copy_from_slice(&head);
    Ok(frame)
}
