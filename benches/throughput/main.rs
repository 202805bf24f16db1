//! Throughput and CPU, compared with the best loop written with the raw client, on one server, in
//! one run.
//!
//! `cargo bench --features kafka --bench throughput -- kafka://localhost:9092` (likewise `amqp`,
//! `nats`, `redis`), with the options `--rounds`, `--messages`, `--payload` and `--in-flight`.
//! Contenders take turns in an order that changes each round, and are compared within rounds. The
//! table shows the median of these ratios and the range of the middle half. 64 publishes are in
//! flight, all confirmed. All messages are consumed and acknowledged, in this library by the
//! consumer runtime with up to 64 handlers. On Redis, where acknowledgements have answers, the raw
//! loop also has up to 64 unanswered.
//!
//! - `R0`: the raw client, messages without headers
//! - `R2`: the raw client, messages with their own `traceparent`, encoded by hand: the bound
//! - `R2'`: the same again, to show the noise
//! - `no sdk`, `0 %`, `10 %`, `100 %`: this library, without an OpenTelemetry SDK or with that
//!   share of traces sampled
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a benchmark"
)]

mod measure;
mod raw;

use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::StreamExt;
use futures_util::stream;
use measure::{Measured, Rounds};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tokio::sync::Notify;
use traced_broker::{Broker, HandlerError, Message, Received, Subscription, TracedBroker, TracedBrokerExt, connect};

#[derive(Parser)]
struct Arguments {
    /// The broker's URL
    url: String,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 50_000)]
    messages: usize,
    #[arg(long, default_value_t = 1024)]
    payload: usize,
    /// Number of messages that are published, or handled, at a time
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// The argument that cargo adds for every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Contender {
    Raw { headers: bool, name: &'static str },
    Ours { sampling: Option<f64>, name: &'static str },
}

const CONTENDERS: [Contender; 7] = [
    Contender::Raw { headers: false, name: "R0" },
    Contender::Raw { headers: true, name: "R2" },
    Contender::Raw { headers: true, name: "R2'" },
    Contender::Ours { sampling: None, name: "no sdk" },
    Contender::Ours { sampling: Some(0.0), name: "0 %" },
    Contender::Ours { sampling: Some(0.1), name: "10 %" },
    Contender::Ours { sampling: Some(1.0), name: "100 %" },
];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments = Arguments::parse();
    let (mut publishing, mut consuming) = (Rounds::new("publish, confirmed"), Rounds::new("consume, acknowledged"));
    for round in 0..arguments.rounds {
        for turn in 0..CONTENDERS.len() {
            // The order changes each round, so that no contender always follows the same one.
            let contender = CONTENDERS[(turn * (1 + round % 6) + round) % CONTENDERS.len()];
            let topic = format!("bench-{}-{round}-{turn}", std::process::id());
            let (publish, consume) = run(contender, &arguments, &topic).await;
            publishing.add(round, contender.name(), publish);
            consuming.add(round, contender.name(), consume);
        }
        println!("round {} of {}", round + 1, arguments.rounds);
    }
    let names = CONTENDERS.map(Contender::name);
    publishing.print(&names, "R2", arguments.messages);
    consuming.print(&names, "R2", arguments.messages);
}

impl Contender {
    const fn name(self) -> &'static str {
        match self {
            Self::Raw { name, .. } | Self::Ours { name, .. } => name,
        }
    }
}

/// Publishes to its own topic and consumes from it.
async fn run(contender: Contender, arguments: &Arguments, topic: &str) -> (Measured, Measured) {
    let Arguments { url, messages, payload, in_flight, .. } = arguments;
    // The library creates the topic and the group that will read it, for the raw loops too.
    let setup = connect(url).await.expect("the broker answers");
    drop(setup.subscribe(Subscription::new(topic).group("bench")).await.expect("a group"));
    setup.publish(topic, Message::new("first")).await.expect("a topic");
    setup.close().await.expect("closes");
    let all = messages + 1;
    match contender {
        Contender::Raw { headers, .. } => {
            let publish = measure::during(raw::publish(url, topic, *messages, *payload, *in_flight, headers)).await;
            let consume = measure::during(raw::consume(url, topic, "bench", all, *in_flight)).await;
            (publish, consume)
        }
        Contender::Ours { sampling, .. } => {
            let provider = sampling.map(provider);
            let connected = || async {
                let broker = connect(url).await.expect("connects");
                provider.iter().fold(broker, |broker, provider| broker.with_tracer_provider(provider))
            };
            let publish = measure::during(publish(connected().await, topic, *messages, *payload, *in_flight)).await;
            let consume = measure::during(consume(connected().await, topic, all, *in_flight)).await;
            (publish, consume)
        }
    }
}

async fn publish(broker: Broker, topic: &str, messages: usize, payload: usize, in_flight: usize) -> Duration {
    let payload = bytes::Bytes::from(vec![b'x'; payload]);
    let begun = Instant::now();
    let messages = stream::iter(0..messages).map(|_| Message::new(payload.clone()));
    let results = broker.publish_all(topic, messages, in_flight);
    results.for_each(|result| async { drop(result.expect("confirmed")) }).await;
    let took = begun.elapsed();
    broker.close().await.expect("closes");
    took
}

async fn consume(broker: Broker, topic: &str, messages: usize, in_flight: usize) -> Duration {
    let subscription = Subscription::new(topic).group("bench").prefetch(1_000);
    let (begun, handled, all) = (OnceCell::new(), Cell::new(0), Notify::new());
    let handler = async |message: Received| {
        // The time to join a group is not measured.
        begun.get_or_init(Instant::now);
        std::hint::black_box(message.payload().len());
        handled.set(handled.get() + 1);
        if handled.get() == messages {
            all.notify_one();
        }
        Ok::<_, HandlerError>(())
    };
    let report = broker.consume(subscription, handler).concurrency(in_flight).run_until(all.notified()).await;
    assert_eq!(report.expect("subscribes").handled, messages as u64, "all acknowledged");
    broker.close().await.expect("closes, acknowledgements included");
    begun.get().map(Instant::elapsed).unwrap_or_default()
}

fn provider(share: f64) -> SdkTracerProvider {
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)));
    let processor = BatchSpanProcessor::builder(Discard).build();
    SdkTracerProvider::builder().with_sampler(sampler).with_span_processor(processor).build()
}

/// An exporter that costs nothing, because exporting is the same work for every contender.
#[derive(Debug)]
struct Discard;

impl SpanExporter for Discard {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}
