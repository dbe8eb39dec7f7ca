//! The timetables against Airflow's own answers, against tables and against invariants.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod crons;
mod errors;
mod invariants;
mod tables;
mod vectors;
