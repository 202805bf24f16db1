//! Tests of `publish`.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::command::traced_broker;
use crate::running::{Running, fed};
use crate::setup::{PARENT, Setup, on_each_broker, text, trace_id};
use crate::support::{Kind, Server};

on_each_broker! {
    a_message_arrives_as_it_was_given,
    each_line_is_a_message_with_a_trace_of_its_own,
    a_message_joins_the_trace_it_is_given,
    a_message_is_kept_back_where_the_broker_can,
    what_the_broker_does_not_take_was_not_sent,
}

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn a_message_arrives_as_it_was_given(setup: Setup) {
    setup.make_group("workers").await;
    let arguments = ["publish", &setup.url, &setup.topic, "--data", r#"{"sku":"A-1"}"#, "--key", "customer-7"];
    let headers = [
        "--header",
        "tenant: acme",
        "--header",
        "Authorization: Bearer topsecret",
        "--content-type",
        "application/json",
    ];
    let outcome = traced_broker(&[&arguments[..], &headers, &["--json"]].concat()).await.ends_with(0);
    let outcome = outcome.never_shows("topsecret");
    let [sent] = &lines(&outcome.out)[..] else { panic!("not one line: {outcome:?}") };
    assert_eq!(sent["outcome"], "confirmed");
    let message = setup.receive("workers", 1).await.remove(0);
    assert_eq!(text(&message), r#"{"sku":"A-1"}"#);
    assert_eq!(message.key().map(|key| &key[..]), Some(&b"customer-7"[..]));
    for (name, value) in
        [("tenant", "acme"), ("authorization", "Bearer topsecret"), ("content-type", "application/json")]
    {
        assert_eq!(message.headers().get_str(name), Some(value), "{name}");
    }
    assert_eq!(sent["trace_id"], trace_id(&message));
    assert!(message.headers().get_str("traceparent").unwrap().ends_with("-01"), "sampled");
    if let Some(offset) = message.offset() {
        assert_eq!(sent["offset"], offset);
    }
}

async fn each_line_is_a_message_with_a_trace_of_its_own(setup: Setup) {
    setup.make_group("workers").await;
    let outcome = fed(&["publish", &setup.url, &setup.topic], "one\n\nthree\r\nfour").await.ends_with(0);
    let messages = setup.receive("workers", 4).await;
    let mut payloads: Vec<String> = messages.iter().map(text).collect();
    if setup.kind == Kind::Kafka {
        // The command created the topic with several partitions.
        payloads.sort_by_key(|payload| ["one", "", "three", "four"].iter().position(|known| known == payload));
    }
    assert_eq!(payloads, ["one", "", "three", "four"]);
    let printed: Vec<&str> = outcome.out.lines().collect();
    assert_eq!(printed.len(), 4, "{outcome:?}");
    for message in &messages {
        let trace = format!("trace {}", trace_id(message));
        let told = printed.iter().filter(|line| line.starts_with("confirmed") && line.contains(&trace)).count();
        assert_eq!(told, 1, "{trace} in {printed:?}");
    }
    fed(&["publish", &setup.url, &setup.topic], "").await.ends_with(0);
}

async fn a_message_joins_the_trace_it_is_given(setup: Setup) {
    setup.make_group("workers").await;
    let parent = format!("traceparent: {PARENT}");
    let arguments = ["publish", &setup.url, &setup.topic, "--data", "x", "--header", &parent];
    let context = ["--header", "tracestate: vendor=1", "--header", "baggage: tenant=acme"];
    let outcome = traced_broker(&[&arguments[..], &context].concat()).await.ends_with(0);
    outcome.prints(&["trace 4bf92f3577b34da6a3ce929d0e0e4736"]);
    let message = setup.receive("workers", 1).await.remove(0);
    assert_eq!(trace_id(&message), "4bf92f3577b34da6a3ce929d0e0e4736");
    let headers = message.headers();
    assert_ne!(headers.get_str("traceparent"), Some(PARENT), "the parent is a span of the command");
    assert_eq!(headers.get_all("traceparent").count(), 1);
    assert_eq!((headers.get_str("tracestate"), headers.get_str("baggage")), (Some("vendor=1"), Some("tenant=acme")));
    let arguments = ["publish", &setup.url, &setup.topic, "--data", "x", "--header", "traceparent: 00-7-7-01"];
    traced_broker(&arguments).await.ends_with(2).complains(&["traceparent is malformed", "length"]);
}

async fn a_message_is_kept_back_where_the_broker_can(setup: Setup) {
    setup.make_group("workers").await;
    let arguments = ["publish", &setup.url, &setup.topic, "--data", "later", "--delay", "1500ms"];
    let begun = Instant::now();
    let outcome = traced_broker(&arguments).await;
    if matches!(setup.kind, Kind::Kafka | Kind::Redis) {
        outcome.ends_with(2).prints(&["not sent", "keep a message for later"]).complains(&["1 of 1"]);
        return setup.assert_no_more("workers").await;
    }
    outcome.ends_with(0).prints(&["confirmed"]);
    let message = setup.receive("workers", 1).await.remove(0);
    assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!(message.headers().get_str("trace-hop"), Some("delayed"));
}

async fn what_the_broker_does_not_take_was_not_sent(setup: Setup) {
    setup.make_group("workers").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("payload");
    std::fs::write(&path, vec![b'x'; 17 << 20]).unwrap();
    let data = format!("@{}", path.display());
    let outcome = traced_broker(&["publish", &setup.url, &setup.topic, "--data", &data, "--json"]).await;
    if setup.kind == Kind::Redis {
        outcome.ends_with(0);
        assert_eq!(setup.receive("workers", 1).await[0].payload().len(), 17 << 20);
        return;
    }
    let outcome = outcome.ends_with(2).complains(&["1 of 1 messages were not confirmed"]);
    let sent = &lines(&outcome.out)[0];
    assert_eq!((&sent["outcome"], &sent["error"]["kind"]), (&"not_sent".into(), &"too_large".into()));
    setup.assert_no_more("workers").await;
}

#[tokio::test]
async fn a_core_nats_server_confirms_nothing() {
    let setup = Setup::new(Kind::Nats).await;
    let url = format!("{}?mode=core", setup.url);
    let outcome = traced_broker(&["publish", &url, &setup.topic, "--data", "x"]).await.ends_with(0);
    outcome.prints(&["unknown", "this broker confirms nothing"]);
}

/// Bytes were sent and no response arrived, so the message may be stored; no further message is
/// sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_leaves_a_message_unknown() {
    let server = tokio::task::spawn_blocking(|| Server::start(Kind::Redis)).await.unwrap();
    let url = format!("{}?response_timeout=1000&connect_timeout=1000", server.url());
    let mut publish = Running::start(&["publish", &url, "orders", "--json"]);
    publish.give("one").await;
    assert_eq!(publish.json().await["outcome"], "confirmed");
    server.pause();
    publish.give("two").await;
    let sent = publish.json().await;
    assert_eq!(sent["outcome"], "unknown", "{sent}");
    let outcome = publish.end().await.ends_with(2).complains(&["1 of 2 messages were not confirmed: "]);
    assert_eq!(outcome.out, "");
    server.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_the_reading_of_lines() {
    let setup = Setup::new(Kind::Redis).await;
    let mut publish = Running::start(&["publish", &setup.url, &setup.topic]);
    publish.give("one").await;
    assert!(publish.line().await.starts_with("confirmed"));
    publish.interrupt().await.ends_with(0);
}
