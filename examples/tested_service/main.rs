//! A small service with tests of its traces.
//!
//! ```text
//! orders ──▶ biller ──invoices──▶ mailer
//!              └──orders.dead
//! ```
//!
//! The biller charges the card of each order, retries if the bank is busy, and gives up orders
//! whose card is declined. The mailer sends an invoice for each billed order. [`tests`] prove with
//! the library's feature `testing` that each order is one trace, also after retries and failures:
//! `cargo test --example tested_service`. `cargo run --example tested_service` bills three orders
//! and ends at Ctrl-C.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

mod bank;
mod service;
#[cfg(test)]
mod tests;

use traced_broker::{Message, TracedBroker, connect, shutdown_signal};

use crate::bank::Bank;
use crate::service::{Order, Service};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // A real program installs its tracer provider here.
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory://shop".to_owned());
    let broker = connect(url).await?;
    let service = Service::start(&broker, &broker, Bank::default()).await?;
    for (id, card) in [("A-1", "4242"), ("A-2", "busy-1"), ("A-3", "declined")] {
        let order = Order { id: id.to_owned(), card: card.to_owned() };
        broker.publish("orders", Message::json(&order)?.key(id)).await?;
    }
    shutdown_signal().await?;
    broker.close().await?;
    let (billed, mailed) = service.ended().await??;
    println!("orders: {billed}");
    println!("invoices: {mailed}");
    Ok(())
}
