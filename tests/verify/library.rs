//! Spans exported by the library itself, on the embedded broker, read back and checked.

use std::time::Duration;

use futures_util::StreamExt;
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use traced_broker::verify::{TraceReport, Traces, Waterfall, check, otlp};
use traced_broker::{Deliveries, HandlerError, Message, Received, Subscription, TracedBroker, connect};

async fn process(deliveries: &mut Deliveries, work: impl FnOnce(&Received) -> Result<(), HandlerError>) {
    let delivery = tokio::time::timeout(Duration::from_secs(20), deliveries.next()).await.unwrap().unwrap().unwrap();
    let handler = |message: Received| async move {
        tokio::time::sleep(Duration::from_millis(2)).await;
        work(&message)
    };
    delivery.process(handler).await.unwrap();
}

/// Exports one message that fails once, one that is rejected and read from the dead-letter topic,
/// and a batch of three.
async fn exported() -> String {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let broker = connect("memory://verify").await.unwrap().with_tracer_provider(&provider);
    let subscription = Subscription::new("orders").group("workers").dead_letter("orders.dead");
    let mut orders = broker.subscribe(subscription).await.unwrap();
    let mut dead = broker.subscribe(Subscription::new("orders.dead").group("desk")).await.unwrap();
    let tracer = provider.tracer("application");
    let root = |name: &'static str| Context::new().with_span(tracer.start_with_context(name, &Context::new()));

    let retried = root("retried order");
    broker.publish("orders", Message::new("1").context(retried.clone())).await.unwrap();
    let pause = Duration::from_millis(20);
    process(&mut orders, |_| Err(HandlerError::retry_after("not yet", pause))).await;
    process(&mut orders, |_| Ok(())).await;
    retried.span().end();

    let rejected = root("rejected order");
    broker.publish("orders", Message::new("2").context(rejected.clone())).await.unwrap();
    process(&mut orders, |_| Err(HandlerError::reject("never"))).await;
    process(&mut dead, |_| Ok(())).await;
    rejected.span().end();

    let bulk = root("three orders");
    let guard = bulk.clone().attach();
    let publish = broker.publish_batch("orders", (3..6).map(|number| Message::new(number.to_string())).collect());
    drop(guard);
    assert!(publish.await.iter().all(Result::is_ok));
    for _ in 0..3 {
        process(&mut orders, |_| Ok(())).await;
    }
    bulk.span().end();
    broker.close().await.unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let resource_spans = group_spans_by_resource_and_scope(spans, &Default::default());
    serde_json::to_string(&ExportTraceServiceRequest { resource_spans }).unwrap()
}

async fn judged() -> (Traces, TraceReport) {
    let traces = otlp::read(exported().await.as_bytes()).unwrap();
    let report = check(&traces);
    (traces, report)
}

#[tokio::test]
async fn its_traces_are_whole() {
    let (traces, report) = judged().await;
    let pictures: Vec<String> = traces.iter().map(|trace| Waterfall::new(trace).report(&report).to_string()).collect();
    assert!(report.is_whole(), "{report}\n\n{}", pictures.join("\n\n"));
    assert_eq!((traces.len(), report.latencies().len()), (3, 6), "{}", pictures.join("\n\n"));
    let hops: Vec<_> = traces.hops();
    assert!(hops.iter().all(|hop| hop.send.is_some() && hop.measured != hop.is_redelivery()));
    let attempts: Vec<_> = hops.iter().map(|hop| (hop.topic(), hop.attempt, hop.is_redelivery())).collect();
    let first = |topic| (topic, 1, false);
    let [orders, dead] = [first("orders"), first("orders.dead")];
    assert_eq!(attempts, [orders, ("orders", 2, true), orders, dead, orders, orders, orders]);
    assert!(pictures[0].contains("┊ retry of orders") && pictures[0].contains(" attempt 2"), "{}", pictures[0]);
    assert!(pictures[1].contains("┊ in queue orders.dead"), "{}", pictures[1]);
}
