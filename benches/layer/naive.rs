//! A typical wrapper written by hand: headers through a map, names by `format!`, attributes built
//! before checking whether the span is recorded.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::FutureExt;
use opentelemetry::global::{BoxedSpan, BoxedTracer};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::noop::NoopTracerProvider;
use opentelemetry::trace::{Link, Span, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use traced_broker::driver::{Disposition, Inbound, Outbound};
use traced_broker::{Headers, Topic};

use crate::contenders::{Mode, provider};
use crate::instant::Instant;

pub(crate) struct Naive {
    driver: Instant,
    tracer: BoxedTracer,
    propagator: TraceContextPropagator,
}

impl Naive {
    pub(crate) fn new(mode: Mode) -> Self {
        let tracer = match provider(mode) {
            Some(provider) => BoxedTracer::new(Box::new(provider.tracer("by hand"))),
            None => BoxedTracer::new(Box::new(NoopTracerProvider::new().tracer("by hand"))),
        };
        Self { driver: Instant::new(), tracer, propagator: TraceContextPropagator::new() }
    }

    pub(crate) fn publish(&self, topic: &str, payload: Bytes, context: &Context) {
        let builder = self.tracer.span_builder(format!("send {topic}")).with_kind(SpanKind::Producer);
        let span = self.tracer.build_with_context(builder.with_attributes(attributes(topic, "send")), context);
        let context = context.with_span(span);
        let mut carrier: HashMap<String, String> = HashMap::new();
        self.propagator.inject_context(&context, &mut carrier);
        let mut headers = Headers::new();
        for (name, value) in &carrier {
            headers.append(name, value);
        }
        let message = Outbound { payload: Some(payload), headers, ..Outbound::default() };
        let _topic = divan::black_box(Topic::new(topic).unwrap());
        self.driver.take(message).unwrap();
        context.span().end();
    }

    pub(crate) fn process(&self, topic: &str, inbound: Inbound) {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let carrier: HashMap<String, String> =
            inbound.headers.iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
        let parent = self.propagator.extract_with_context(&Context::new(), &carrier);
        let link = Link::with_context(parent.span().span_context().clone());
        let builder = self.tracer.span_builder(format!("process {topic}")).with_kind(SpanKind::Consumer);
        let builder = builder.with_attributes(attributes(topic, "process")).with_links(vec![link]);
        let mut span: BoxedSpan = self.tracer.build_with_context(builder, &parent);
        if let Some(id) = inbound.id {
            span.set_attribute(KeyValue::new("messaging.message.id", id));
        }
        let context = parent.with_span(span);
        let guard = context.clone().attach();
        let handled: Result<(), std::io::Error> = std::hint::black_box(Ok(()));
        drop(guard);
        handled.unwrap();
        inbound.handle.settle(Disposition::Ack).now_or_never().unwrap().unwrap();
        context.span().end();
    }
}

fn attributes(topic: &str, operation: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "instant"),
        KeyValue::new("messaging.operation.name", operation.to_owned()),
        KeyValue::new("messaging.operation.type", operation.to_owned()),
        KeyValue::new("messaging.destination.name", topic.to_owned()),
        KeyValue::new("server.address", "localhost".to_owned()),
        KeyValue::new("server.port", 1),
    ]
}
