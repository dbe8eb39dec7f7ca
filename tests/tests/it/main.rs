//! Gust from outside, as its users meet it: the built binary, its API, its command line.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of tests that cannot go on fails its test"
)]

mod airflow_client;
mod auth;
mod browser;
mod cluster;
mod conformance;
mod kill_minus_nine;
mod layers;
mod ledger;
mod logs;
mod standalone;
