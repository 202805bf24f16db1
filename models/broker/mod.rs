//! The flight table, and its models.

#[path = "../../src/broker/flights/mod.rs"]
mod flights;
pub mod models;
mod table;
