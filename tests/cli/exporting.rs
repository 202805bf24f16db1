//! The export of the command's own spans.

use crate::command::traced_broker_in;
use crate::receiver::Receiver;

const PUBLISH: [&str; 5] = ["publish", "memory://shop", "orders", "--data", "one pair of shoes"];

#[tokio::test]
async fn spans_go_where_the_environment_says() {
    let collector = Receiver::start().await;
    let outcome = traced_broker_in(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)], &PUBLISH).await.ends_with(0);
    let spans = collector.spans();
    let send = spans.iter().find(|span| span.name == "send orders").unwrap();
    let trace: String = send.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(outcome.out.contains(&trace), "{outcome:#?}");
    assert_eq!(collector.resources()[0]["service.name"], "traced-broker");
}

#[tokio::test]
async fn a_collector_that_is_away_fails_no_command() {
    let away = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")];
    let outcome = traced_broker_in(&away, &PUBLISH).await.ends_with(0);
    outcome.complains(&["the spans of this command are lost"]);
}

/// Messages get a context even with the SDK disabled, because that is the purpose of the command.
#[tokio::test]
async fn messages_have_a_trace_also_where_there_is_to_be_no_sdk() {
    let collector = Receiver::start().await;
    let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url), ("OTEL_SDK_DISABLED", "true")];
    let outcome = traced_broker_in(&disabled, &["probe", "memory://shop", "orders"]).await.ends_with(0);
    outcome.prints(&["1 of 1 arrived, 1 with the context as sent"]);
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn an_environment_that_makes_no_sense_is_told() {
    let secret = "http://user:hunter2@[";
    let outcome = traced_broker_in(&[("OTEL_EXPORTER_OTLP_ENDPOINT", secret)], &PUBLISH).await.ends_with(2);
    outcome.complains(&["OTEL_EXPORTER_OTLP_ENDPOINT"]).never_shows("hunter2");
}
