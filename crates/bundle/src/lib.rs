//! DAG bundles: a folder packed into one immutable, content-addressed archive, and unpacked again with care (DESIGN §6).
//!
//! A version's name is the SHA-256 of its packed content, so the same folder is the same version everywhere, and an
//! archive that is not what its name says is refused. Archives lie in the object store under
//! `bundles/NAME/<sha256>.tar.zst`; the pointer `bundles/NAME/current` moves last.

mod cache;
mod pack;
mod store;
mod unpack;

pub use cache::BundleCache;
pub use pack::{PackError, Packed, pack};
pub use store::{current_version, push};
pub use unpack::{Limits, Refusal, unpack};
