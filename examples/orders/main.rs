//! An order system of five services that talk over any broker, and proves that none of its traces broke.
//!
//! ```text
//! client ──HTTP──▶ order-api ──orders──▶ fulfillment-worker ──notifications──▶ notification-service
//!                      │                        └──orders.dead──▶ dead-letter-desk
//!                      └──job table──▶ reconciliation-job
//! ```
//!
//! `cargo run --release --example orders` posts a file of orders to the API over HTTP, waits until each is delivered or
//! dead-lettered, and then reads back the spans that the services exported: it draws the trace of one order, sums up,
//! and fails when a trace is broken or an order unaccounted for. `-- --help` lists the options.
//!
//! With `--role` each service is a process of its own, as it would be deployed; `traced-broker verify` is then the judge.
//!
//! Exit status: 0 when all is well, 1 when a trace is broken or an order unaccounted for, 2 when it could not run.

mod api;
mod args;
mod books;
mod chain;
mod client;
mod collector;
mod consumer;
mod cut;
mod dead_letters;
mod fulfillment;
mod ledger;
mod meters;
mod notification;
mod order;
mod outside_world;
mod progress;
#[cfg(test)]
mod proof;
mod reconciliation;
mod refusal;
mod role;
mod run;
mod screen;
mod server_span;
mod shop;
mod span_file;
mod summary;
mod telemetry;
mod validation;
mod verdict;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;

use crate::args::Args;
use crate::progress::Progress;
use crate::role::Roles;
use crate::screen::Screen;
use crate::shop::Shop;
use crate::summary::Summary;
use crate::telemetry::Telemetry;
use crate::verdict::Verdict;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    screen::log_if_asked();
    match run(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            screen::complain(&error);
            ExitCode::from(2)
        }
    }
}

/// Whether all is well, as far as this process can tell.
async fn run(args: &Args) -> Result<bool> {
    let roles = args.roles()?;
    if roles.are_all() { run_whole(args, roles).await } else { run_part(args, roles).await }
}

/// Opens the shop, lets the orders through, closes it, and judges by the spans that came out.
async fn run_whole(args: &Args, roles: Roles) -> Result<bool> {
    let screen = Screen::new();
    let orders = args.orders()?;
    let mut telemetry = Telemetry::new(args.spans.as_deref(), args.otlp.as_deref(), args.cut)?;
    let shop = Shop::open(&args.plan(roles), &mut telemetry).await?;
    screen.opened(&shop, args.serves());

    let progress = Progress::start(shop.tally(), orders.len());
    let address = shop.address().context("the API is not here")?;
    let posted = client::post_all(address, orders, shop.ledger()).await?;
    if args.serves() {
        traced_broker::shutdown_signal().await.context("cannot wait for Ctrl-C")?;
    }
    let books = shop.close().await;
    progress.finish().await;

    let exported = telemetry.shut_down().await?;
    let verdict = Verdict::reach(&books, &exported.traces);
    screen.conclude(&Summary { books: &books, posted: &posted, exported: &exported, verdict: &verdict });
    Ok(verdict.holds())
}

/// Runs some of the services until the process is told to end. Whether a trace is whole only the backend knows.
async fn run_part(args: &Args, roles: Roles) -> Result<bool> {
    let screen = Screen::new();
    let mut telemetry = Telemetry::new(args.spans.as_deref(), args.otlp.as_deref(), args.cut)?;
    let shop = Shop::open(&args.plan(roles), &mut telemetry).await?;
    screen.opened(&shop, true);
    traced_broker::shutdown_signal().await.context("cannot wait for Ctrl-C")?;
    let books = shop.close().await;
    let exported = telemetry.shut_down().await?;
    screen.stopped(&books, &exported);
    Ok(true)
}
