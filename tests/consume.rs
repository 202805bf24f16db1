//! The consumer runtime, on the memory broker.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "consume/drain.rs"]
mod drain;
#[path = "consume/lanes.rs"]
mod lanes;
#[path = "consume/retries.rs"]
mod retries;
#[path = "consume/shop.rs"]
mod shop;
#[path = "consume/work.rs"]
mod work;
