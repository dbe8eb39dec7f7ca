//! The web server: the REST API under `/api/v2` in Airflow's shapes, the pages, and what guards them.
//!
//! The API is described by a table of endpoints ([`api`]): one description of a request's parameters both checks them
//! and makes the OpenAPI document, so that the two never differ. Every route is denied without a token unless it says
//! that it is public.

pub mod api;
pub mod auth;
mod call;
mod endpoint;
mod error;
mod events;
mod inputs;
mod mask;
mod openapi;
mod pages;
mod server;
mod state;
mod time;

pub use auth::{Auth, AuthError, AuthMode, Identity, Role};
pub use error::ApiError;
pub use openapi::openapi_document;
pub use server::{ServeError, router, serve};
pub use state::{AppState, Graph, Settings};
