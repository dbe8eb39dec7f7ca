//! The host against the real task SDK.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

mod callbacks;
mod environments;
mod frames;
mod lifetimes;
mod parsing;
mod protocol;
mod questions;
mod support;
mod tasks;
mod triggers;
