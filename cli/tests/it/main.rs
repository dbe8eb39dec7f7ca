//! Runs the built binary against a home of its own, on SQLite.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod house;
mod keeping;
mod looking;
mod usage;
