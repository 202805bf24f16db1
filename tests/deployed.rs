//! The order system as separate processes that share only a real broker. Its spans go to a real
//! Jaeger, and the built command `traced-broker verify` is the judge.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[path = "deployed/brokers.rs"]
mod brokers;
#[path = "deployed/judge.rs"]
mod judge;
#[path = "deployed/readme.rs"]
mod readme;
#[path = "deployed/shop.rs"]
mod shop;
#[path = "deployed/single.rs"]
mod single;
mod support;
