//! An order system of five services over any broker, which proves that none of its traces broke.
//!
//! ```text
//! client ──HTTP──▶ order-api ──orders──▶ fulfillment-worker
//!                                        └──notifications──▶ notification-service
//!                      │                        └──orders.dead──▶ dead-letter-desk
//!                      └──job table──▶ reconciliation-job
//! ```
//!
//! `cargo run --release --example orders` posts a file of orders to the API over HTTP and waits
//! until each is delivered or dead-lettered. Then it reads back the spans that the services
//! exported, draws the trace of one order, and sums up. `-- --help` lists the options.
//!
//! With `--role`, each service is a separate process, as in a deployment; `traced-broker verify`
//! then judges the traces.
//!
//! Exit status: 0 if all is well, 1 if a trace is broken or an order is unaccounted for, 2 if the
//! program could not run.

mod api;
mod args;
mod client;
mod cut;
mod dead_letters;
mod fulfillment;
mod ledger;
mod notification;
mod order;
#[cfg(test)]
mod proof;
mod reconciliation;
mod screen;
mod shop;
mod summary;
mod telemetry;
mod verdict;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;

use crate::args::Args;
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

/// Runs the services of this process, and returns `true` if all is well.
async fn run(args: &Args) -> Result<bool> {
    args.check()?;
    let orders = args.orders()?;
    let mut telemetry = Telemetry::new(args)?;
    let shop = Shop::open(args, &mut telemetry).await?;
    screen::opened(&shop, args);

    let progress = tokio::spawn(screen::show_progress(shop.run.ledger.clone(), orders.len()));
    let refused = match shop.address {
        Some(address) => client::post_all(address, orders, &shop.run.ledger).await?,
        None => Vec::new(),
    };
    if args.serves() {
        traced_broker::shutdown_signal().await.context("cannot wait for Ctrl-C")?;
    }
    let books = shop.close().await;
    progress.abort();
    let exported = telemetry.shut_down().await?;
    if !args.is_whole() {
        // The traces continue in other processes: only their backend has all spans.
        screen::stopped(&books, &exported);
        return Ok(true);
    }
    let verdict = Verdict::reach(&books, &exported.traces);
    let file = args.spans.as_deref();
    screen::say(Summary { books: &books, refused: &refused, exported: &exported, verdict: &verdict, file });
    Ok(verdict.problems.is_empty())
}
