//! The positions of a Kafka subscription, and their models.

mod consume;
pub mod models;
