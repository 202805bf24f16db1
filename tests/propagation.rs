//! How deliveries relate to the contexts they carry, what crosses trust boundaries, what is measured and what is logged; on the embedded broker.
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
