//! Tests of the commands' own spans, exported to a Collector.

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::command::{Outcome, traced_broker_in};
use crate::receiver::Receiver;
use crate::setup::{Setup, on_each_broker};

on_each_broker! {
    a_probe_is_one_whole_trace,
    a_bridge_is_in_the_trace_of_the_message,
}

async fn exporting(arguments: &[&str], receiver: &Receiver) -> Outcome {
    traced_broker_in(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url)], arguments).await
}

#[track_caller]
fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    let [one] = found[..] else { panic!("{} spans are called {name}: {spans:#?}", found.len()) };
    one
}

async fn a_probe_is_one_whole_trace(setup: Setup) {
    let receiver = Receiver::start().await;
    let outcome = exporting(&["probe", &setup.url, &setup.topic], &receiver).await.ends_with(0);
    let (spans, topic) = (receiver.spans(), &setup.topic);
    let [create, send, process] = ["create", "send", "process"].map(|name| one(&spans, &format!("{name} {topic}")));
    assert_eq!(
        [&create.parent_span_id, &send.parent_span_id, &process.parent_span_id],
        [&vec![], &create.span_id, &create.span_id]
    );
    assert_eq!(create.kind(), SpanKind::Producer);
    assert!(spans.iter().all(|span| span.trace_id == create.trace_id), "{spans:#?}");
    let trace: String = create.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    outcome.prints(&[&trace]);
    assert!(receiver.resources().iter().all(|resource| resource["service.name"] == "traced-broker"));
}

async fn a_bridge_is_in_the_trace_of_the_message(setup: Setup) {
    let far = setup.beside("far");
    setup.make_group("bridge").await;
    // Without one, RabbitMQ would have no place for the copy, and the bridge would wait for it.
    setup.with_topic(&far).make_group("reader").await;
    let receiver = Receiver::start().await;
    exporting(&["publish", &setup.url, &setup.topic, "--data", "x"], &receiver).await.ends_with(0);
    let bridge = ["bridge", &setup.url, &setup.topic, &setup.url, &far, "--group", "bridge", "--count", "1"];
    exporting(&bridge, &receiver).await.ends_with(0).prints(&["1 copied"]);
    let (spans, topic) = (receiver.spans(), &setup.topic);
    let publish = one(&spans, &format!("publish {topic}"));
    let send = one(&spans, &format!("send {topic}"));
    let process = one(&spans, &format!("process {topic}"));
    let copy = one(&spans, &format!("send {far}"));
    let parents = [publish, send, process, copy].map(|span| &span.parent_span_id);
    assert_eq!(parents, [&vec![], &publish.span_id, &send.span_id, &process.span_id]);
    assert!(spans.iter().all(|span| span.trace_id == publish.trace_id), "{spans:#?}");
}
