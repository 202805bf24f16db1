//! The Redis adapter against a real server: the contract of all brokers, and at the level of the driver what is particular to
//! it. `tests/run redis` runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod contract;
mod support;

use contract::contract;

contract!(crate::support::shared(crate::support::Kind::Redis));
