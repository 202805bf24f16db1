//! The relation of deliveries to the contexts they carry, trust boundaries, metrics and logs, on
//! the embedded broker.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "propagation/boundaries.rs"]
mod boundaries;
#[path = "propagation/logging.rs"]
mod logging;
#[path = "propagation/measuring.rs"]
mod measuring;
#[path = "propagation/policies.rs"]
mod policies;
#[path = "propagation/scene.rs"]
mod scene;
