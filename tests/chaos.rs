//! A campaign of failures against real servers, as a command: `cargo test --test chaos -- --help`.
//! `tests/run chaos` runs its short form.
//!
//! A run publishes and consumes while faults happen (`chaos/stage.rs`), and takes down a history
//! (`chaos/history.rs`). A judge who knows nothing of brokers reads it (`chaos/checker/`, tested by
//! `tests/chaos_checker.rs`). Its findings are held against the known breaks (`chaos/known.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

#[path = "chaos/case.rs"]
mod case;
#[path = "chaos/checker/mod.rs"]
mod checker;
#[path = "chaos/command.rs"]
mod command;
#[path = "chaos/consumers.rs"]
mod consumers;
#[path = "chaos/credentials.rs"]
mod credentials;
#[path = "chaos/history.rs"]
mod history;
#[path = "chaos/known.rs"]
mod known;
#[path = "chaos/leader.rs"]
mod leader;
#[path = "chaos/operator.rs"]
mod operator;
#[path = "chaos/panics.rs"]
mod panics;
#[path = "chaos/plan.rs"]
mod plan;
#[path = "chaos/producers.rs"]
mod producers;
#[path = "chaos/progress.rs"]
mod progress;
#[path = "chaos/proxy.rs"]
mod proxy;
#[path = "chaos/recipe.rs"]
mod recipe;
#[path = "chaos/recorder.rs"]
mod recorder;
#[path = "chaos/resources.rs"]
mod resources;
#[path = "chaos/runtimes.rs"]
mod runtimes;
#[path = "chaos/scenario.rs"]
mod scenario;
#[path = "chaos/secrets.rs"]
mod secrets;
#[path = "chaos/site.rs"]
mod site;
#[path = "chaos/spans.rs"]
mod spans;
#[path = "chaos/stage.rs"]
mod stage;
mod support;
#[path = "chaos/table.rs"]
mod table;
#[path = "chaos/worker.rs"]
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

fn main() -> ExitCode {
    panics::watch();
    secrets::watch();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Threads that only waited for a server end soon: threads are counted at the end of a run.
    let runtime = runtime.enable_all().thread_keep_alive(Duration::from_millis(200)).build();
    runtime.expect("a runtime").block_on(command::Command::parse().run())
}
