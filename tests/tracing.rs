//! With the feature `tracing`, contexts follow the spans of that crate, for every setting of its
//! OpenTelemetry layer.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "tracing/logs.rs"]
mod logs;

use futures_util::StreamExt;
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use traced_broker::{Message, Subscription, Traced, TracedBroker, adapters::memory::Memory};
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

#[tokio::test]
async fn contexts_follow_tracing_spans() {
    follows_tracing_spans(true).await;
}

/// If the layer does not make the context of an entered span current, the library asks the span.
#[tokio::test]
async fn contexts_follow_tracing_spans_that_do_not_activate_their_context() {
    follows_tracing_spans(false).await;
}

async fn follows_tracing_spans(activation: bool) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer =
        tracing_opentelemetry::layer().with_tracer(provider.tracer("application")).with_context_activation(activation);
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let broker = Traced::new(std::sync::Arc::new(Memory::new())).with_tracer_provider(&provider);
    let mut deliveries = broker.subscribe(Subscription::new("orders").group("g")).await.unwrap();
    let request = tracing::info_span!("request");
    broker.publish("orders", Message::new("x")).instrument(request.clone()).await.unwrap();
    // Called inside the span, polled outside: the context of the call applies.
    let called = request.in_scope(|| broker.publish("orders", Message::new("y")));
    called.await.unwrap();
    drop(request);

    // With a layer that does not activate contexts, a handler's spans look the same as those of a
    // surrounding loop.
    let receiving = if activation { tracing::info_span!("receiving loop") } else { tracing::Span::none() };
    async {
        for _ in 0..2 {
            let delivery = deliveries.next().await.unwrap().unwrap();
            let inner = broker.clone();
            delivery
                .process(|_| async move {
                    tokio::task::yield_now().await;
                    inner.publish("notifications", Message::new("directly")).await?;
                    let ship = tracing::info_span!("ship");
                    inner.publish("shipments", Message::new("in a span")).instrument(ship).await?;
                    Ok(())
                })
                .await
                .unwrap();
        }
    }
    .instrument(receiving)
    .await;
    drop(guard);

    let spans = exporter.get_finished_spans().unwrap();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<&SpanData>>();
    let request = named("request")[0];
    for send in named("send orders") {
        assert_eq!(send.parent_span_id, request.span_context.span_id(), "published within the request");
    }
    let processes = named("process orders");
    assert_eq!(processes.len(), 2);
    let processing: Vec<SpanId> = processes.iter().map(|span| span.span_context.span_id()).collect();
    for process in &processes {
        assert_eq!(process.span_context.trace_id(), request.span_context.trace_id(), "not in the loop's trace");
    }
    for send in named("send notifications") {
        assert!(processing.contains(&send.parent_span_id), "published by the handler");
    }
    let ships: Vec<SpanId> = named("ship").iter().map(|span| span.span_context.span_id()).collect();
    assert_eq!(ships.len(), 2);
    for send in named("send shipments") {
        assert!(ships.contains(&send.parent_span_id), "published within the handler's own span");
    }
    for ship in named("ship") {
        assert!(processing.contains(&ship.parent_span_id), "the handler's spans are children of the process span");
    }
}
