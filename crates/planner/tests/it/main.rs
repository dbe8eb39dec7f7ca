//! Plays DAGs in memory with the planner alone, and holds it against what real Airflow did.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "A test that cannot go on fails.")]

mod conformance;
mod world;
