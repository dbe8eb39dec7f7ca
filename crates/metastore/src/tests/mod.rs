//! What is SQL's alone; what every metastore must do stands in `tests/it`.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod fixtures;
mod locks;
mod plans;
mod queue;
mod schema;
mod stored_values;
