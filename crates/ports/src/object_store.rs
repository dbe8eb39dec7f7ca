use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

/// The key of an object: segments of letters, digits and `!-_.*'()=@+:~%`, joined by `/`. No segment is empty, `.` or
/// `..`, so a key never leaves its store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks and wraps a key.
    ///
    /// # Errors
    /// [`ObjectStoreError::BadKey`] for an empty key, an empty or dotted segment, or a character that a store may not
    /// keep as it is.
    pub fn new(key: impl Into<String>) -> Result<Self, ObjectStoreError> {
        let key = key.into();
        let good = !key.is_empty()
            && key.len() <= 1024
            && key.split('/').all(|segment| {
                !segment.is_empty()
                    && segment != "."
                    && segment != ".."
                    && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"!-_.*'()=@+:~%".contains(&b))
            });
        if good { Ok(Self(key)) } else { Err(ObjectStoreError::BadKey(key)) }
    }

    /// A segment for a key made from any text: what a key may not hold, and `%`, is percent-encoded, so that two
    /// different texts never make the same segment.
    #[must_use]
    pub fn segment(text: &str) -> String {
        use fmt::Write as _;
        let mut out = String::with_capacity(text.len());
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric()
                || b"!-_*'()@+:~".contains(&byte)
                || (byte == b'.' && !out.is_empty())
            {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What a listing tells of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// How a create-only put ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is new.
    Created,
    /// An object with the same content was there: an earlier attempt of this put got through.
    AlreadySame,
    /// An object with other content was there. It was left as it is.
    AlreadyDifferent,
}

/// Why the object store did not do what it was asked.
#[derive(Debug, Error)]
pub enum ObjectStoreError {
    /// The key is none.
    #[error(
        "{0:?} is not an object key: segments of letters, digits and !-_.*'()=@+:~% joined by single slashes"
    )]
    BadKey(String),
    /// It may work later.
    #[error("the object store did not answer {operation} {key:?}: {source}")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It will not work later either.
    #[error("the object store refused {operation} {key:?}: {source}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Where bundles and logs live: a folder, or S3.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Writes an object that must not exist yet. Durable once answered.
    async fn create(&self, key: &ObjectKey, content: Bytes) -> Result<PutOutcome, ObjectStoreError>;

    /// Writes an object, in place of one that may exist. For pointers only; everything else is create-only.
    async fn replace(&self, key: &ObjectKey, content: Bytes) -> Result<(), ObjectStoreError>;

    /// Reads a whole object; `None` if there is none.
    async fn read(&self, key: &ObjectKey) -> Result<Option<Bytes>, ObjectStoreError>;

    /// Lists the objects whose keys start with `prefix` (any text, not only whole segments), in the order of their
    /// keys, only those after `after` if it is given, at most `limit`.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, ObjectStoreError>;

    /// Removes an object. One that does not exist is no error.
    async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectStoreError>;
}
