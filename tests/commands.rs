//! Tests of the commands that work on brokers, each run as a separate process against real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

#[path = "commands/bridging.rs"]
mod bridging;
#[path = "cli/command.rs"]
#[allow(dead_code, reason = "each test target uses only a part")]
mod command;
#[path = "commands/consuming.rs"]
mod consuming;
#[path = "commands/examining.rs"]
mod examining;
#[path = "commands/exporting.rs"]
mod exporting;
#[path = "commands/probing.rs"]
mod probing;
#[path = "commands/publishing.rs"]
mod publishing;
#[path = "otlp/receiver.rs"]
#[allow(dead_code, reason = "each test target uses only a part")]
mod receiver;
#[path = "commands/redriving.rs"]
mod redriving;
#[path = "commands/running.rs"]
mod running;
#[path = "commands/setup.rs"]
mod setup;
