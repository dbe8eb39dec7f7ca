//! Runs the built binary against a home of its own, on SQLite.

mod house;
mod keeping;
mod looking;
mod usage;
