//! The host against the real task SDK.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

mod support;
mod tasks;
