//! The places of publishes in flight: they belong to the driver's answer, not to the caller's
//! future.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "flights/driver.rs"]
mod driver;
#[path = "flights/leaving.rs"]
mod leaving;
#[path = "flights/memory.rs"]
mod memory;
#[path = "flights/order.rs"]
mod order;
