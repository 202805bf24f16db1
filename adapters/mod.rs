//! The adapters. Each maps native headers, settlement and topology to the
//! [`Driver`](crate::driver::Driver) contract, and does not handle telemetry.

#[cfg(feature = "amqp")]
pub mod amqp;
#[cfg(test)]
#[path = "../tests/fuzz/corpus.rs"]
pub mod corpus;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "redis")]
pub mod redis;
