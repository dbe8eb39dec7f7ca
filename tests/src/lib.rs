//! What the end-to-end tests share: the built binary, services that end with the test, a REST client, and waiting for
//! what can be seen from outside.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::print_stderr,
    reason = "a harness that cannot set itself up fails the test by a panic that says why"
)]

mod binary;
mod gust;
mod house;
mod processes;
mod python;
mod rest;
mod service;
mod waiting;

pub use binary::gust_binary;
pub use gust::{Gust, Options};
pub use house::House;
pub use processes::Marked;
pub use python::{client_python, example_dags_folder, python};
pub use rest::{Refused, Rest, mint_token};
pub use service::Service;
pub use waiting::{eventually, keep_looking};
