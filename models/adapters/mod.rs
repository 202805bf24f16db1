//! The embedded broker, the positions of a Kafka subscription, and their models.

pub mod kafka;
#[path = "../../adapters/memory/mod.rs"]
pub mod memory;
pub mod memory_models;
