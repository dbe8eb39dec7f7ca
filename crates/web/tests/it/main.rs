//! The REST API, request by request, over the ports in memory.

#![expect(clippy::unwrap_used, reason = "A test ends at the first thing that is not as it should be.")]

mod auth;
mod changes;
mod reading;
mod requests;
mod world;
