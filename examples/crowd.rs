//! Many failing messages among good ones: measures how long the good ones take.
//!
//! ```text
//! cargo run --release --features full --example crowd -- redis://127.0.0.1:6379
//! cargo run --release --features full --example crowd -- memory:// --ordered --one-key
//! ```
//!
//! Publishes `--bad` messages that always fail among `--good` others, and consumes with the default
//! settings until all good ones are handled. Exit status: 0 if they are, 1 if not in time.

#![expect(clippy::print_stdout, reason = "the output of the program")]

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Notify;
use traced_broker::{Broker, HandlerError, Message, Received, Subscription, TracedBroker, TracedBrokerExt, connect};

/// Many failing messages among good ones.
#[derive(Parser)]
struct Args {
    /// The broker.
    url: String,
    /// The number of messages that always fail.
    #[arg(long, default_value_t = 10_000)]
    bad: usize,
    /// The number of messages that are handled at the first attempt.
    #[arg(long, default_value_t = 100_000)]
    good: usize,
    /// Keep the order of each key.
    #[arg(long)]
    ordered: bool,
    /// Give all failing messages one key, and not one of their own.
    #[arg(long)]
    one_key: bool,
    /// The number of handlers that run at a time.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// The time that each handler waits, in microseconds.
    #[arg(long, default_value_t = 0)]
    work: u64,
    /// Give up after this many seconds.
    #[arg(long, default_value_t = 3_600)]
    within: u64,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let broker = connect(&args.url).await?;
    let topic = format!("crowd-{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
    let (handled, news) = (Mutex::new(HashSet::new()), Notify::new());
    let bar = ProgressBar::new(args.good as u64)
        .with_style(ProgressStyle::with_template("{elapsed:>5} {bar:40} {pos}/{len} good messages handled {msg}")?);
    let handler = async |message: Received| {
        if args.work > 0 {
            tokio::time::sleep(Duration::from_micros(args.work)).await;
        }
        if message.payload().starts_with(b"bad") {
            return Err(HandlerError::retry("always"));
        }
        let mut handled = handled.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if handled.insert(message.payload().clone()) {
            bar.inc(1);
        }
        if handled.len() == args.good {
            news.notify_one();
        }
        Ok(())
    };
    let workers = Subscription::new(&topic).group("workers").dead_letter(format!("{topic}.dead"));
    let consume = broker.consume(workers, handler).concurrency(args.concurrency);
    let consume = if args.ordered { consume.ordered_by_key() } else { consume };
    let consumer = consume.subscribed().await?;
    publish(&broker, &topic, &args).await?;
    let begun = Instant::now();
    let mut in_time = false;
    let report = consumer.run_until(async {
        in_time = tokio::time::timeout(Duration::from_secs(args.within), news.notified()).await.is_ok();
    });
    let report = report.await?;
    bar.finish();
    println!("{:.2} s; {report}", begun.elapsed().as_secs_f64());
    broker.close().await?;
    Ok(ExitCode::from(u8::from(!in_time)))
}

/// Publishes the messages, the failing ones evenly among the others.
async fn publish(broker: &Broker, topic: &str, args: &Args) -> Result<()> {
    let every = (args.good + args.bad) / args.bad.max(1);
    let (mut good, mut bad) = (0, 0);
    while good + bad < args.good + args.bad {
        let mut messages = Vec::new();
        while messages.len() < 1_000 && good + bad < args.good + args.bad {
            let is_bad = bad < args.bad && ((good + bad) % every == 0 || good == args.good);
            messages.push(if is_bad {
                let key = if args.one_key { "bad".to_owned() } else { format!("bad-{bad}") };
                bad += 1;
                Message::new(format!("bad {bad}")).key(key)
            } else {
                good += 1;
                Message::new(good.to_string()).key(format!("good-{}", good % 1_000))
            });
        }
        for published in broker.publish_batch(topic, messages).await {
            published.context("a message was not published")?;
        }
    }
    Ok(())
}
