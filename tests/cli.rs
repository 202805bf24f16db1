//! Tests of the command `traced-broker` against loopback servers that respond like Tempo and
//! Jaeger, or wrongly.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

#[path = "cli/asking.rs"]
mod asking;
#[path = "cli/bad_input.rs"]
mod bad_input;
#[path = "cli/breaking.rs"]
mod breaking;
#[path = "cli/brokers.rs"]
mod brokers;
#[path = "cli/command.rs"]
mod command;
#[path = "cli/exporting.rs"]
mod exporting;
#[path = "cli/other_commands.rs"]
mod other_commands;
#[path = "otlp/receiver.rs"]
#[allow(dead_code, reason = "each test target uses only a part")]
mod receiver;
#[path = "cli/server.rs"]
mod server;
#[path = "cli/traces.rs"]
mod traces;
