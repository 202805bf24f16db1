//! The adapters. Each maps native headers, settlement and topology to the
//! [`Driver`](crate::driver::Driver) contract, and does not handle telemetry.

#[cfg(feature = "amqp")]
pub mod amqp;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "redis")]
pub mod redis;
