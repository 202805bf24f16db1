//! Tests that spans of the embedded broker conform to the tables, and that the check names any
//! change to them.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{FutureExt, StreamExt};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};

use crate::conformance::conventions::{SeenAtStart, Surroundings, Watching, check_span};
use crate::conformance::spans::Spans;
use crate::driver::{Driver, Identity};
use crate::message::Message;
use crate::{Broker, Subscription, TraceReference, TracedBroker};

/// Returns the exported spans of a publish, a batch, a forward and their handlers, and the
/// attributes that samplers saw.
fn exported() -> (Vec<SpanData>, SeenAtStart) {
    let (spans, seen) = (Spans::default(), SeenAtStart::default());
    let provider = SdkTracerProvider::builder()
        .with_sampler(Watching::new(seen.clone()))
        .with_simple_exporter(spans.clone())
        .build();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let broker = embedded().await.with_tracer_provider(&provider);
        let mut deliveries = broker.subscribe(Subscription::new("orders").group("workers")).await.unwrap();
        let parent = SpanContext::new(TraceId::from(1), SpanId::from(2), TraceFlags::SAMPLED, true, TraceState::NONE);
        let context = Context::new().with_remote_span_context(parent);
        broker.publish("orders", Message::new("x").id("1").context(context)).await.unwrap();
        for result in broker.publish_batch("orders", vec![Message::new("y"), Message::new("z")]).await {
            result.unwrap();
        }
        let first = deliveries.next().await.unwrap().unwrap();
        broker.forward("orders", Message::from(first.message())).await.unwrap();
        first.process(|_| async { Ok(()) }).await.unwrap();
        let fails = |_| async { Err::<(), _>(crate::HandlerError::reject("no")) };
        deliveries.next().await.unwrap().unwrap().process(fails).await.unwrap();
    });
    (spans.all(), seen)
}

/// Connects to a new embedded broker.
async fn embedded() -> Broker {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let url = format!("memory://conventions-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    crate::connect(&url).await.unwrap()
}

fn identity() -> Identity {
    embedded().now_or_never().unwrap().get_ref().identity().clone()
}

fn complaints(span: &SpanData) -> Vec<String> {
    check_span(span, &Surroundings { identity: &identity(), own: &["messaging.mine.number"], batches: &[] })
}

fn one(operation: &str, kind: SpanKind) -> SpanData {
    let spans = exported().0.into_iter();
    let mut spans = spans.filter(|span| span.name.starts_with(operation) && span.span_kind == kind);
    spans.next().unwrap()
}

#[test]
fn every_span_is_as_the_tables_say() {
    let (spans, seen) = exported();
    for span in &spans {
        assert_eq!(complaints(span), Vec::<String>::new());
        assert_eq!(seen.check(span), Vec::<String>::new());
    }
    for (operation, kind) in [
        ("create", SpanKind::Producer),
        ("send", SpanKind::Producer),
        ("send", SpanKind::Client),
        ("process", SpanKind::Consumer),
    ] {
        assert!(
            spans.iter().any(|span| span.name.starts_with(operation) && span.span_kind == kind),
            "{operation} {kind:?}"
        );
    }
}

/// A change to a valid span.
type Change = fn(&mut SpanData);

/// Returns the only finding that a change causes.
#[track_caller]
fn found(operation: &str, kind: SpanKind, change: impl FnOnce(&mut SpanData)) -> String {
    let mut span = one(operation, kind);
    change(&mut span);
    let complaints = complaints(&span);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    complaints.into_iter().next().unwrap()
}

fn set(span: &mut SpanData, pair: KeyValue) {
    span.attributes.retain(|other| other.key != pair.key);
    span.attributes.push(pair);
}

fn without(span: &mut SpanData, name: &str) {
    span.attributes.retain(|pair| pair.key.as_str() != name);
}

#[test]
fn an_attribute_that_is_missing_is_named() {
    for name in ["messaging.system", "messaging.destination.name", "messaging.operation.name"] {
        for (operation, kind) in [
            ("create", SpanKind::Producer),
            ("send", SpanKind::Producer),
            ("send", SpanKind::Client),
            ("process", SpanKind::Consumer),
        ] {
            let mut span = one(operation, kind);
            without(&mut span, name);
            let complaints = complaints(&span).join("; ");
            assert!(complaints.contains(&format!("{name} is there")), "{operation}: {complaints}");
        }
    }
    for name in ["messaging.memory.sequence", "traced_broker.delivery.attempt"] {
        let complaint = found("process", SpanKind::Consumer, |span| without(span, name));
        assert!(complaint.contains(&format!("{name} is there")), "{complaint}");
    }
    let complaint = found("process", SpanKind::Consumer, |span| without(span, "traced_broker.settlement"));
    assert!(complaint.contains("how it was settled"), "{complaint}");
    let complaint = found("process", SpanKind::Consumer, |span| without(span, "traced_broker.queue.clock"));
    assert!(complaint.contains("has a clock"), "{complaint}");
}

#[test]
fn an_attribute_that_nobody_knows_is_named() {
    for name in
        ["messaging.destination", "messaging.url", "traced_broker.extra", "messaging.memory.offset", "server.name"]
    {
        let complaint = found("send", SpanKind::Producer, |span| set(span, KeyValue::new(name, "x")));
        assert!(complaint.contains(&format!("{name} is in the conventions or in our registry")), "{complaint}");
    }
    let mut span = one("send", SpanKind::Producer);
    set(&mut span, KeyValue::new("messaging.mine.number", 1));
    set(&mut span, KeyValue::new("application.own", 1));
    assert_eq!(complaints(&span), Vec::<String>::new(), "what the adapter names, and what is not ours to judge");
}

#[test]
fn an_attribute_in_the_wrong_place_is_named() {
    let process = SpanKind::Consumer;
    for (pair, expected) in [
        (KeyValue::new("messaging.kafka.offset", 1), "messaging.kafka.offset does not belong to memory"),
        (KeyValue::new("messaging.memory.sequence", "1"), "messaging.memory.sequence is of the type Integer"),
        (KeyValue::new("traced_broker.queue.clock", "mine"), "traced_broker.queue.clock is one of"),
        (KeyValue::new("traced_broker.queue.duration", -0.5), "no time in a queue is negative"),
        (KeyValue::new("network.peer.address", "::1"), "network.peer.address does not belong on it"),
        (KeyValue::new("messaging.consumer.group.name", ""), "messaging.consumer.group.name is not empty"),
        (KeyValue::new("server.port", 1), "server.port is there if the driver knows it"),
        (KeyValue::new("messaging.destination.anonymous", false), "messaging.destination.anonymous is one of"),
        (KeyValue::new("messaging.destination.template", "other"), "its name is \"process other\""),
        (KeyValue::new("messaging.system", "kafkaesque"), "the system is memory: kafkaesque"),
        (KeyValue::new("error.type", "timeout"), "error.type if and only if"),
    ] {
        let mut span = one("process", process.clone());
        set(&mut span, pair);
        let complaints = complaints(&span).join("; ");
        assert!(complaints.contains(expected), "{expected}: {complaints}");
    }
    let on_send = KeyValue::new("messaging.consumer.group.name", "workers");
    let complaint = found("send", SpanKind::Producer, |span| set(span, on_send));
    assert!(complaint.contains("does not belong on it"), "{complaint}");
    let complaint = found("send", SpanKind::Client, |span| {
        set(span, KeyValue::new("messaging.batch.message_count", 2));
        set(span, KeyValue::new("messaging.message.id", "1"));
    });
    assert!(complaint.contains("messaging.message.id is about one message"), "{complaint}");
}

#[test]
fn what_else_a_span_is_made_of_is_checked() {
    let process = || SpanKind::Consumer;
    let cases: [(&str, SpanKind, Change, &str); 7] = [
        ("process", process(), |span| span.name = "process orders 17".into(), "its name is \"process orders\""),
        ("process", process(), |span| span.span_kind = SpanKind::Internal, "fit each other"),
        ("process", process(), |span| span.status = Status::Ok, "is the application's to set"),
        ("process", process(), |span| span.status = Status::error("no"), "error.type if and only if"),
        ("process", process(), |span| span.links.links.clear(), "the creation context is linked, too"),
        ("process", process(), |span| span.links.dropped_count = 1, "no link is dropped"),
        ("send", SpanKind::Client, |span| span.links.links.clear(), "what is sent is linked"),
    ];
    for (operation, kind, change, expected) in cases {
        let complaint = found(operation, kind, change);
        assert!(complaint.contains(expected), "{expected}: {complaint}");
    }
    let mut twice = one("process", process());
    twice.attributes.push(twice.attributes[0].clone());
    assert!(complaints(&twice)[0].contains("is there once"));
}

#[test]
fn what_comes_too_late_for_samplers_is_named() {
    let (spans, seen) = exported();
    let mut late = spans.iter().find(|span| span.name == "process orders").unwrap().clone();
    set(&mut late, KeyValue::new("messaging.destination.template", "orders"));
    assert!(seen.check(&late)[0].contains("messaging.destination.template is there when the span begins"));
    late.name = "process other".into();
    assert!(seen.check(&late)[0].contains("a sampler was asked"));
}

#[test]
fn spans_of_jobs_are_as_the_tables_say() {
    let (spans, seen) = (Spans::default(), SeenAtStart::default());
    let sampler = Watching::new(seen.clone());
    let provider = SdkTracerProvider::builder().with_sampler(sampler).with_simple_exporter(spans.clone()).build();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let asked = SpanContext::new(TraceId::from(1), SpanId::from(2), TraceFlags::SAMPLED, true, TraceState::NONE);
    let reference = TraceReference::of_context(&Context::new().with_remote_span_context(asked)).unwrap().with_note("x");
    let job = crate::Job::new("report").trigger("schedule").job_type("monthly").reference(reference);
    runtime.block_on(job.with_tracer_provider(&provider).run(async { Err::<(), _>("no") })).unwrap_err();
    let span = spans.all().pop().unwrap();
    assert_eq!(complaints(&span), Vec::<String>::new());
    assert_eq!(seen.check(&span), Vec::<String>::new());
    let changes: [(Change, &str); 4] = [
        (|span| without(span, "job.name"), "job.name is there"),
        (|span| set(span, KeyValue::new("job.id", 7)), "job.id is in the conventions or in our registry"),
        (|span| set(span, KeyValue::new("messaging.system", "memory")), "messaging.system does not belong on it"),
        (|span| span.name = "report".into(), "it is called after the job"),
    ];
    for (change, expected) in changes {
        let mut changed = span.clone();
        change(&mut changed);
        let found = complaints(&changed).join("; ");
        assert!(found.contains(expected), "{expected}: {found}");
    }
}
