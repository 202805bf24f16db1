//! The cost of the consumer runtime on the memory broker, and of order by key.
//!
//! `cargo bench --bench runtime`, with the options `--rounds`, `--messages` and `--keys`. Every
//! contender publishes messages with many keys and handles them, up to 64 at a time, without an
//! SDK. Contenders take turns in an order that changes each round, and are compared within rounds.
//! `at once` handlers return without waiting; `yielding` ones wait once, so that several are in
//! progress.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a benchmark"
)]

#[path = "throughput/measure.rs"]
mod measure;

use std::cell::Cell;
use std::time::{Duration, Instant};

use clap::Parser;
use measure::Rounds;
use tokio::sync::Notify;
use traced_broker::adapters::memory::Memory;
use traced_broker::{HandlerError, Message, Received, Subscription, Traced, TracedBroker, TracedBrokerExt};

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// At most the capacity of a topic of the memory broker: all are published before the first is
    /// handled
    #[arg(long, default_value_t = 60_000)]
    messages: usize,
    #[arg(long, default_value_t = 10_000)]
    keys: usize,
    /// The argument that cargo adds for every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// The name of each contender, whether it asks for order by key, and whether its handlers wait.
const CONTENDERS: [(&str, bool, bool); 6] = [
    ("unordered, at once", false, false),
    ("unordered, at once, again", false, false),
    ("ordered, at once", true, false),
    ("unordered, yielding", false, true),
    ("unordered, yielding, again", false, true),
    ("ordered, yielding", true, true),
];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    let mut at_once = Rounds::new("handlers that return at once");
    let mut yielding = Rounds::new("handlers that wait once");
    for round in 0..arguments.rounds {
        for turn in 0..CONTENDERS.len() {
            let (name, ordered, yields) =
                CONTENDERS[(turn * if round % 2 == 0 { 1 } else { 5 } + round) % CONTENDERS.len()];
            let measured = measure::during(run(&arguments, ordered, yields)).await;
            if yields { yielding.add(round, name, measured) } else { at_once.add(round, name, measured) }
        }
    }
    let names = CONTENDERS.map(|(name, _, _)| name);
    at_once.print(&names[..3], names[0], arguments.messages);
    yielding.print(&names[3..], names[3], arguments.messages);
}

async fn run(arguments: &Arguments, ordered: bool, yields: bool) -> Duration {
    let broker = Traced::new(Memory::new());
    let subscription = Subscription::new("bench").group("bench").prefetch(1_000);
    drop(broker.subscribe(subscription.clone()).await.expect("a group"));
    let messages = (0..arguments.messages).map(|number| Message::new("x").key((number % arguments.keys).to_string()));
    for message in messages {
        broker.publish("bench", message).await.expect("confirmed");
    }
    let (handled, all) = (Cell::new(0), Notify::new());
    let handler = async |_: Received| {
        if yields {
            tokio::task::yield_now().await;
        }
        handled.set(handled.get() + 1);
        if handled.get() == arguments.messages {
            all.notify_one();
        }
        Ok::<_, HandlerError>(())
    };
    let begun = Instant::now();
    let consume = broker.consume(subscription, handler).concurrency(64);
    let consume = if ordered { consume.ordered_by_key() } else { consume };
    let report = consume.run_until(all.notified()).await.expect("subscribes");
    let took = begun.elapsed();
    assert_eq!(report.handled, arguments.messages as u64);
    took
}
