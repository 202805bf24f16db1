//! Traces at a bridge that differ from those of a plain message: untrusted, ignored, late.

use std::sync::Arc;
use std::time::Duration;
use traced_broker::names::attribute;

use futures_util::StreamExt;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio::time::timeout;
use traced_broker::adapters::memory::Memory;
use traced_broker::{
    Headers, Message, Subscription, TracePolicy, Traced, TracedBroker, TracedBrokerExt, TrustBoundary,
};

struct Scene {
    here: Traced<Arc<Memory>>,
    there: Traced<Arc<Memory>>,
    exporter: InMemorySpanExporter,
}

impl Scene {
    fn new() -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let broker = || Traced::new(Arc::new(Memory::new())).with_tracer_provider(&provider);
        Self { here: broker(), there: broker(), exporter }
    }

    /// Publishes at the near end, bridges, and processes at the far end. Returns the headers that
    /// arrived and the context that was current in the handler.
    async fn cross(&self, message: Message, bridged: Subscription) -> (Headers, Context) {
        self.here.publish("near", message).await.unwrap();
        let mut far = self.there.subscribe(Subscription::new("far").group("end")).await.unwrap();
        let arriving = async {
            let delivery = timeout(Duration::from_secs(20), far.next()).await.expect("a copy").unwrap().unwrap();
            let headers = delivery.message().headers().clone();
            let mut seen = Context::new();
            let look = |_| {
                seen = Context::current();
                async { Ok(()) }
            };
            delivery.process(look).await.unwrap();
            (headers, seen)
        };
        let mut arrived = None;
        let bridge = self.here.bridge(bridged, &self.there, "far");
        bridge.run_until(async { arrived = Some(arriving.await) }).await.unwrap();
        arrived.unwrap()
    }

    fn one(&self, name: &str) -> SpanData {
        let mut spans = self.exporter.get_finished_spans().unwrap();
        spans.retain(|span| span.name == name);
        assert_eq!(spans.len(), 1, "spans named {name}");
        spans.remove(0)
    }
}

fn near() -> Subscription {
    Subscription::new("near").group("bridge")
}

/// Returns an untrusted peer's message, sampled and with baggage.
fn strange() -> Message {
    let state = TraceState::from_key_value([("vendor", "1")]).unwrap();
    let span = SpanContext::new(TraceId::from(7), SpanId::from(8), TraceFlags::SAMPLED, true, state);
    let baggage = [KeyValue::new("tenant", "acme"), KeyValue::new("role", "admin")];
    Message::new("x").context(Context::new().with_remote_span_context(span).with_baggage(baggage))
}

fn trace(span: &SpanData) -> TraceId {
    span.span_context.trace_id()
}

fn attribute(span: &SpanData, key: &str) -> String {
    let found = span.attributes.iter().find(|pair| pair.key.as_str() == key);
    found.map(|pair| pair.value.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn a_strangers_context_ends_at_the_bridge() {
    let scene = Scene::new();
    let guarded = near().trust_boundary(TrustBoundary::new().allow_baggage("tenant"));
    let (headers, seen) = scene.cross(strange(), guarded).await;
    let (send, bridge) = (scene.one("send near"), scene.one("process near"));
    let (copy, process) = (scene.one("send far"), scene.one("process far"));
    assert_ne!(trace(&bridge), trace(&send));
    assert_eq!(bridge.links[0].span_context.span_id(), send.span_context.span_id());
    assert_eq!([trace(&copy), trace(&process)], [trace(&bridge); 2]);
    assert_eq!((copy.span_kind, copy.links.len()), (SpanKind::Producer, 0), "a message of the bridge's own");
    assert_eq!(process.parent_span_id, copy.span_context.span_id());
    assert_eq!(seen.baggage().get("tenant").map(ToString::to_string).as_deref(), Some("acme"));
    assert_eq!(seen.baggage().get("role"), None);
    assert!(headers.get("tracestate").is_none() && !headers.get_str("baggage").unwrap().contains("role"));
}

#[tokio::test]
async fn what_the_bridge_ignores_does_not_cross() {
    let scene = Scene::new();
    let (headers, seen) = scene.cross(strange(), near().trace_policy(TracePolicy::Ignore)).await;
    let (send, bridge, process) = (scene.one("send near"), scene.one("process near"), scene.one("process far"));
    assert_ne!(trace(&process), trace(&send));
    assert_eq!(trace(&process), trace(&bridge));
    assert!(bridge.links.is_empty() && seen.baggage().is_empty() && !headers.contains("baggage"));
}

#[tokio::test]
async fn a_bridge_that_only_links_still_passes_the_trace_on() {
    let scene = Scene::new();
    scene.cross(strange(), near().trace_policy(TracePolicy::Link)).await;
    let (send, bridge, process) = (scene.one("send near"), scene.one("process near"), scene.one("process far"));
    assert_ne!(trace(&bridge), trace(&send), "the bridge has a trace of its own");
    assert_eq!(process.parent_span_id, send.span_context.span_id());
    assert_eq!(trace(&process), trace(&send));
}

#[tokio::test]
async fn what_was_delayed_here_counts_as_delayed_there() {
    let scene = Scene::new();
    scene.cross(strange().delay(Duration::from_millis(20)), near()).await;
    let (send, process) = (scene.one("send near"), scene.one("process far"));
    assert_eq!(attribute(&process, attribute::HOP), "delayed");
    assert_ne!(trace(&process), trace(&send), "linked, for it came late");
    assert_eq!(process.links[0].span_context.span_id(), send.span_context.span_id());
}

#[tokio::test]
async fn what_was_replayed_here_counts_as_replayed_there() {
    let scene = Scene::new();
    scene.cross(strange(), near().replay()).await;
    let (send, process) = (scene.one("send near"), scene.one("process far"));
    assert_eq!(attribute(&process, attribute::HOP), "replay");
    assert_ne!(trace(&process), trace(&send));
}
