//! A worker with the real Task SDK, over ports in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at the first surprise")]

mod asks;
mod deaths;
mod fakes;
mod house;
mod played_triggers;
mod tries;
mod waits;
