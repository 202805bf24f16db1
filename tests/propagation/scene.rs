//! The broker of one test, and its spans.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use traced_broker::adapters::memory::Memory;
use traced_broker::{Deliveries, Delivery, Subscription, Traced};

pub(crate) struct Scene {
    pub(crate) broker: Traced<Arc<Memory>>,
    exporter: InMemorySpanExporter,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        Self { broker: Traced::new(Arc::new(Memory::new())).with_tracer_provider(&provider), exporter }
    }

    /// Returns all ended spans with this name.
    pub(crate) fn spans(&self, name: &str) -> Vec<SpanData> {
        let spans = self.exporter.get_finished_spans().unwrap();
        spans.into_iter().filter(|span| span.name == name).collect()
    }

    pub(crate) fn span(&self, name: &str) -> SpanData {
        let mut spans = self.spans(name);
        assert_eq!(spans.len(), 1, "spans called {name}");
        spans.remove(0)
    }

    /// Returns the relation of a topic's only process span to its only send span.
    pub(crate) fn relation(&self, topic: &str) -> Relation {
        let (send, process) = (self.span(&format!("send {topic}")), self.span(&format!("process {topic}")));
        let is_child = process.parent_span_id == send.span_context.span_id();
        let is_in_trace = process.span_context.trace_id() == send.span_context.trace_id();
        assert_eq!(is_child, is_in_trace, "a child is in the trace, and nothing else is");
        let is_linked = process.links.iter().any(|link| link.span_context.span_id() == send.span_context.span_id());
        match (is_child, is_linked) {
            (true, true) => Relation::Child,
            (false, true) => Relation::Linked,
            (false, false) => Relation::None,
            (true, false) => panic!("a child without a link"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// A child of the send span, with a link to it.
    Child,
    Linked,
    None,
}

pub(crate) fn group(topic: &str) -> Subscription {
    Subscription::new(topic).group("g")
}

pub(crate) async fn next(deliveries: &mut Deliveries) -> Delivery {
    tokio::time::timeout(Duration::from_secs(10), deliveries.next()).await.unwrap().unwrap().unwrap()
}

pub(crate) async fn process(deliveries: &mut Deliveries) {
    next(deliveries).await.process(|_| async { Ok(()) }).await.unwrap();
}

pub(crate) fn attribute(span: &SpanData, name: &str) -> Option<String> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == name).map(|attribute| attribute.value.to_string())
}

/// Returns a remote context.
pub(crate) fn remote(state: &str) -> Context {
    let state = TraceState::from_key_value(state.split_once('=')).unwrap();
    let span = SpanContext::new(TraceId::from(7), SpanId::from(8), TraceFlags::SAMPLED, true, state);
    Context::new().with_remote_span_context(span)
}
