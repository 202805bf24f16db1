//! Building blocks of programs on any broker: workers, batches, bridges, redrives, requests, jobs
//! and shutdown.

pub mod bridge;
mod broker_ext;
pub mod consume;
mod health;
pub mod job;
pub mod redrive;
pub mod request;
mod shutdown;

pub use broker_ext::TracedBrokerExt;
pub use health::Health;
pub use shutdown::shutdown_signal;
