//! Plays DAGs in memory with the planner alone, and holds it against what real Airflow did.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "A test that cannot go on fails.")]
#![expect(clippy::needless_pass_by_value, reason = "Builders take `json!` values as they are written.")]

mod admission;
mod build;
mod conformance;
mod cost;
mod ends;
mod mapping;
mod oracle;
mod past;
mod plans;
mod properties;
mod requests;
mod rules;
mod runs;
mod stops;
mod world;
