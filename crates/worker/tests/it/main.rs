//! A worker with the real Task SDK, over ports in memory.

mod deaths;
mod house;
mod tries;
mod waits;
