//! The REST API, request by request, over the ports in memory.

mod auth;
mod changes;
mod reading;
mod requests;
mod world;
