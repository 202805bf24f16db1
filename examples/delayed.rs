//! A delayed message: sent now, handed out later, in its own trace with a link to the sender.
//!
//! ```text
//! cargo run --example delayed
//! cargo run --example delayed --features nats -- --broker nats://localhost:4222
//! ```
//!
//! As a child, the work would belong to a trace that a backend has stored and sampled long ago, and
//! that seems to last as long as the delay.
#![expect(clippy::print_stdout, reason = "the output of the program")]

#[path = "support/span_log.rs"]
mod span_log;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use futures_util::StreamExt as _;
use opentelemetry::trace::{TraceContextExt as _, Tracer as _};
use traced_broker::verify::{Waterfall, check};
use traced_broker::{Message, Subscription, TracedBroker as _, connect};

const TOPIC: &str = "reminders";

/// Sends a reminder that is handed out later, and shows both traces.
#[derive(Debug, Parser)]
struct Args {
    /// The broker, one that can delay; except for memory, each needs its cargo feature: amqp, nats
    #[arg(long, value_name = "URL", default_value = "memory://reminders")]
    broker: String,

    /// The delay of the message, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1500)]
    delay: u64,

    /// The file that exported spans are appended to [default: a temporary file]
    #[arg(long, value_name = "FILE")]
    spans: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let temporary = tempfile::NamedTempFile::new()?;
    let spans = args.spans.as_deref().unwrap_or(temporary.path());
    let provider = span_log::install(spans, "reminders");
    let broker = connect(&args.broker).await?;
    // Delayed messages get a link unless `Subscription::trace_policy_for(Hop::Delayed, …)` differs.
    let mut deliveries = broker.subscribe(Subscription::new(TOPIC).group("mailers")).await?;

    let request = opentelemetry::global::tracer("reminders").start("POST /reminders");
    let request = opentelemetry::Context::new().with_span(request);
    let reminder = Message::new("your basket is waiting").delay(Duration::from_millis(args.delay));
    broker.publish(TOPIC, reminder.context(request.clone())).await?;
    request.span().end();
    println!("sent, to be handed out in {} ms", args.delay);

    let delivery = deliveries.next().await.context("the broker is gone")??;
    let mail = |_| async {
        tokio::time::sleep(Duration::from_millis(40)).await;
        Ok(())
    };
    delivery.process(mail).await?;
    broker.close().await?;
    provider.shutdown()?;

    let traces = span_log::read(spans)?;
    let report = check(&traces);
    for trace in &traces {
        println!("\n{}", Waterfall::new(trace).within(&traces).report(&report));
    }
    println!("\n{report}");
    ensure!(report.is_whole(), "a trace is broken");
    Ok(())
}
