//! The scheduler over in-memory ports: time stands in the test's hand, and the worker is the test itself.

#![expect(clippy::unwrap_used, reason = "A failed expectation ends a test.")]

mod dag_processor;
mod house;
mod passes;
