//! The long-lived parts of Gust as this binary runs them: one process each, or all of them in one.

mod alone;
mod origins;
mod parser;
mod parts;
mod python;
mod shutdown;
mod standalone;
mod test_run;

pub use parts::{dag_processor, scheduler, token, triggerer, web, worker};
pub use standalone::{StandaloneOptions, standalone};
pub use test_run::{TestRun, test_run};
