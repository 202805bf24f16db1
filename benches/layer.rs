//! What the tracing layer costs per message: the same driver called directly and through `Traced`, without an SDK, with every
//! trace unsampled, and with every trace sampled. The driver confirms at once, so that nothing else is measured.
//!
//! `cargo bench --bench layer` prints times and allocations per operation.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use divan::{AllocProfiler, Bencher};
use futures_util::{FutureExt, StreamExt, stream};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use traced_broker::driver::{
    AttributeValue, Confirmation, DeliveryHandle, Destination, Disposition, Driver, Identity, Inbound, Outbound, Source,
};
use traced_broker::{
    Capabilities, Deliveries, Headers, Message, Receipt, Result, Start, Subscription, Topic, Traced, TracedBroker,
};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// How the layer is used.
const MODES: [&str; 3] = ["no sdk", "unsampled", "sampled"];

#[divan::bench]
fn publish_driver_alone(bencher: Bencher) {
    let driver = Instant::new();
    let topic = Topic::new("orders").unwrap();
    bencher.bench_local(|| {
        let mut headers = Headers::new();
        headers.append("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
        let message = Outbound { payload: Some(PAYLOAD), headers, ..Outbound::default() };
        driver.publish(&topic, message).now_or_never().unwrap().unwrap()
    });
}

#[divan::bench(args = MODES)]
fn publish(bencher: Bencher, mode: &str) {
    let broker = traced(mode);
    let context = remote(mode);
    bencher.bench_local(|| {
        let message = Message::new(PAYLOAD).context(context.clone());
        broker.publish("orders", message).now_or_never().unwrap().unwrap()
    });
}

#[divan::bench]
fn process_driver_alone(bencher: Bencher) {
    let mut source = Instant::source();
    bencher.bench_local(|| {
        let inbound = next(|cx| source.poll_next(cx)).unwrap().unwrap();
        inbound.handle.settle(Disposition::Ack).now_or_never().unwrap().unwrap();
    });
}

#[divan::bench(args = MODES)]
fn process(bencher: Bencher, mode: &str) {
    let broker = traced(mode);
    let mut deliveries: Deliveries =
        broker.subscribe(Subscription::new("orders").group("g")).now_or_never().unwrap().unwrap();
    bencher.bench_local(|| {
        let delivery = next(|cx| deliveries.poll_next_unpin(cx)).unwrap().unwrap();
        delivery.process(|_| async { Ok(()) }).now_or_never().unwrap().unwrap()
    });
}

const PAYLOAD: Bytes = Bytes::from_static(&[b'x'; 1024]);

fn next<T>(mut poll: impl FnMut(&mut std::task::Context<'_>) -> Poll<Option<T>>) -> Option<T> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match poll(&mut cx) {
        Poll::Ready(item) => item,
        Poll::Pending => None,
    }
}

fn traced(mode: &str) -> Traced<std::sync::Arc<Instant>> {
    let broker = Traced::new(std::sync::Arc::new(Instant::new()));
    let sampler = match mode {
        "no sdk" => return broker,
        "unsampled" => Sampler::AlwaysOff,
        _ => Sampler::AlwaysOn,
    };
    let provider = SdkTracerProvider::builder().with_sampler(sampler).with_simple_exporter(Discard).build();
    broker.with_tracer_provider(&provider)
}

fn remote(mode: &str) -> Context {
    let flags = if mode == "sampled" { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let span = SpanContext::new(TraceId::from(1), SpanId::from(2), flags, true, TraceState::default());
    Context::new().with_remote_span_context(span)
}

/// An exporter that costs nothing.
#[derive(Debug)]
struct Discard;

impl SpanExporter for Discard {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}

/// A driver that confirms at once and always has a message.
#[derive(Debug)]
struct Instant {
    identity: Identity,
    capabilities: Capabilities,
}

impl Instant {
    fn new() -> Self {
        let identity = Identity::new("instant").with_server("localhost", 1);
        Self { identity, capabilities: Capabilities::new() }
    }

    fn source() -> Source {
        let mut headers = Headers::new();
        headers.append("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let messages = stream::repeat_with(move || {
            Ok(Inbound {
                payload: Some(PAYLOAD),
                key: None,
                id: None,
                headers: headers.clone(),
                unreadable_headers: 0,
                attempt: 1,
                timestamp: None,
                partition: None,
                offset: None,
                handle: Box::new(Handle),
            })
        });
        Source::new(Destination::new(), messages)
    }
}

#[async_trait]
impl Driver for Instant {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, _: &Topic) -> Result<Destination> {
        Ok(Destination::new())
    }

    fn publish(&self, _: &Topic, message: Outbound) -> Confirmation<Receipt> {
        divan::black_box(message);
        Confirmation::ready(Ok(Receipt::confirmed()))
    }

    async fn subscribe(&self, _: &Subscription) -> Result<Source> {
        Ok(Self::source())
    }

    async fn reposition(&self, _: &Subscription, _: Start) -> Result<()> {
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Handle;

impl DeliveryHandle for Handle {
    fn settle(self: Box<Self>, _: Disposition) -> Confirmation<()> {
        Confirmation::ready(Ok(()))
    }

    fn attributes(&self, _: &mut dyn FnMut(&'static str, AttributeValue)) {}
}
