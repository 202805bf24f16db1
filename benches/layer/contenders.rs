//! The contenders and their operations.

use std::fmt;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use futures_util::{FutureExt, StreamExt};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use traced_broker::driver::{Disposition, Outbound};
use traced_broker::w3c::TraceParent;
use traced_broker::{Headers, Message, Subscription, Traced, TracedBroker};

use crate::instant::{Instant, PAYLOAD};
use crate::naive::Naive;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Publish,
    Process,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The driver called directly, with a traceparent encoded by hand in a publish: the minimum.
    Driver,
    /// A typical wrapper written by hand.
    Naive,
    Ours,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    NoSdk,
    Unsampled,
    Sampled,
}

/// A contender at an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contender {
    pub(crate) operation: Operation,
    pub(crate) kind: Kind,
    pub(crate) mode: Mode,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Driver => return f.write_str("driver alone"),
            Kind::Naive => "by hand",
            Kind::Ours => "traced",
        };
        let mode = match self.mode {
            Mode::NoSdk => "no SDK",
            Mode::Unsampled => "unsampled",
            Mode::Sampled => "sampled",
        };
        write!(f, "{kind}, {mode}")
    }
}

impl Contender {
    /// Returns the operation, to be called any number of times.
    pub(crate) fn prepare(&self) -> Box<dyn FnMut()> {
        match (self.operation, self.kind) {
            (Operation::Publish, Kind::Driver) => publish_alone(),
            (Operation::Publish, Kind::Naive) => {
                let (naive, context) = (Naive::new(self.mode), remote(self.mode));
                Box::new(move || naive.publish("orders", PAYLOAD, &context))
            }
            (Operation::Publish, Kind::Ours) => {
                let (broker, context) = (traced(self.mode), remote(self.mode));
                Box::new(move || {
                    let message = Message::new(PAYLOAD).context(context.clone());
                    broker.publish("orders", message).now_or_never().unwrap().unwrap();
                })
            }
            (Operation::Process, Kind::Driver) => process_alone(),
            (Operation::Process, Kind::Naive) => {
                let (naive, mut source) = (Naive::new(self.mode), Instant::source());
                Box::new(move || {
                    let inbound = next(|cx| source.poll_next(cx)).unwrap();
                    naive.process("orders", inbound);
                })
            }
            (Operation::Process, Kind::Ours) => {
                let subscription = Subscription::new("orders").group("g");
                let mut deliveries = traced(self.mode).subscribe(subscription).now_or_never().unwrap().unwrap();
                Box::new(move || {
                    let delivery = next(|cx| deliveries.poll_next_unpin(cx)).unwrap();
                    delivery.process(|_| async { Ok(()) }).now_or_never().unwrap().unwrap();
                })
            }
        }
    }
}

fn publish_alone() -> Box<dyn FnMut()> {
    let driver = Instant::new();
    let mut span: u64 = 0;
    Box::new(move || {
        span += 1;
        let parent = TraceParent::new(TraceId::from(1), SpanId::from(span), TraceFlags::default()).unwrap();
        let mut headers = Headers::new();
        headers.append("traceparent", parent.encode());
        let message = Outbound { payload: Some(PAYLOAD), headers, ..Outbound::default() };
        driver.take(message).unwrap();
    })
}

fn process_alone() -> Box<dyn FnMut()> {
    let mut source = Instant::source();
    Box::new(move || {
        let inbound = next(|cx| source.poll_next(cx)).unwrap();
        inbound.handle.settle(Disposition::Ack).now_or_never().unwrap().unwrap();
    })
}

fn next<T>(mut poll: impl FnMut(&mut TaskContext<'_>) -> Poll<Option<traced_broker::Result<T>>>) -> Option<T> {
    match poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(item) => item.map(Result::unwrap),
        Poll::Pending => None,
    }
}

fn traced(mode: Mode) -> Traced<Arc<Instant>> {
    let broker = Traced::new(Arc::new(Instant::new()));
    match provider(mode) {
        Some(provider) => broker.with_tracer_provider(&provider),
        None => broker,
    }
}

pub(crate) fn provider(mode: Mode) -> Option<SdkTracerProvider> {
    let sampler = match mode {
        Mode::NoSdk => return None,
        Mode::Unsampled => Sampler::AlwaysOff,
        Mode::Sampled => Sampler::AlwaysOn,
    };
    Some(SdkTracerProvider::builder().with_sampler(sampler).with_simple_exporter(Discard).build())
}

fn remote(mode: Mode) -> Context {
    let flags = if mode == Mode::Sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
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
