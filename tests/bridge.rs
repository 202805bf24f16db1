//! Bridges between real brokers: one trace for each message, whatever it carries and whatever the
//! brokers do meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod support;

#[path = "bridge/foreign.rs"]
mod foreign;
#[path = "bridge/hostile.rs"]
mod hostile;
#[path = "bridge/outage.rs"]
mod outage;
#[path = "bridge/pairs.rs"]
mod pairs;
#[path = "bridge/resume.rs"]
mod resume;
#[path = "bridge/setup.rs"]
mod setup;
#[path = "bridge/traces.rs"]
mod traces;
