//! Tests of `consume`.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::json;
use traced_broker::{ErrorKind, Subscription, TracedBroker as _, connect};

use crate::command::traced_broker;
use crate::running::Running;
use crate::setup::{PARENT, Setup, on_each_broker, text};
use crate::support::Kind;

on_each_broker! {
    a_tail_shows_what_comes_and_no_group_misses_anything,
    a_tail_goes_back_to_the_beginning_where_there_is_one,
    a_tail_begins_at_a_time,
    a_member_of_a_group_takes_what_it_prints,
    a_tail_makes_nothing,
}

async fn a_tail_shows_what_comes_and_no_group_misses_anything(setup: Setup) {
    setup.make_group("workers").await;
    let mut tail = Running::start(&["consume", &setup.url, &setup.topic, "--json"]);
    let warmed = warm_up(&setup, &mut tail).await;
    let headers = [
        ("traceparent", PARENT),
        ("tenant", "acme"),
        ("authorization", "Bearer topsecret"),
        ("x-api-key", "topsecret"),
    ];
    for number in 0..20 {
        setup.publish_raw(&number.to_string(), &headers).await;
    }
    let mut shown = Vec::new();
    while shown.len() < 20 {
        let message = tail.json().await;
        if message["payload"] != "warm" {
            shown.push(message);
        }
    }
    let payloads: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(shown.iter().map(|message| message["payload"].as_str().unwrap()).collect::<Vec<_>>(), payloads);
    let context = json!({ "state": "valid", "detail": null, "sampled": true,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7" });
    assert_eq!(shown[0]["context"], context);
    let headers = &shown[0]["headers"];
    assert_eq!((&headers["tenant"], &headers["traceparent"]), (&json!(["acme"]), &json!([PARENT])));
    assert_eq!((&headers["authorization"], &headers["x-api-key"]), (&json!(["***"]), &json!(["***"])));
    assert_eq!(tail.interrupt().await.ends_with(0).err, "");

    let all = setup.receive("workers", warmed + 20).await;
    let last: Vec<String> = all[warmed..].iter().map(text).collect();
    assert_eq!(last, payloads, "the group gets all of it");
    assert!(all.iter().all(|message| message.attempt() == 1), "and for the first time");
    setup.assert_no_more("workers").await;
}

/// Publishes until the tail shows a message, so that it misses none afterwards; returns the number
/// published.
async fn warm_up(setup: &Setup, tail: &mut Running) -> usize {
    let mut published = 0;
    loop {
        setup.publish("warm").await;
        published += 1;
        if tokio::time::timeout(Duration::from_millis(300), tail.line()).await.is_ok() {
            return published;
        }
        assert!(published < 100, "the tail shows nothing");
    }
}

async fn a_tail_goes_back_to_the_beginning_where_there_is_one(setup: Setup) {
    for number in 0..5 {
        setup.publish_raw(&number.to_string(), &[("traceparent", PARENT)]).await;
    }
    let arguments = ["consume", &setup.url, &setup.topic, "--from", "earliest", "--count", "5"];
    let outcome = traced_broker(&arguments).await;
    if !setup.keeps() {
        outcome.ends_with(2).complains(&["keeps messages in the queues of groups", "start at the latest"]);
        return;
    }
    let outcome = outcome.ends_with(0).prints(&["  trace ", "  sampled", "  traceparent: 00-"]);
    let payloads: Vec<&str> = outcome.out.lines().filter(|line| line.trim().parse::<u32>().is_ok()).collect();
    assert_eq!(payloads, ["  0", "  1", "  2", "  3", "  4"], "{outcome:?}");
    let bare = traced_broker(&[&arguments[..], &["--no-payload", "--json"]].concat()).await.ends_with(0);
    assert!(bare.out.lines().count() == 5 && !bare.out.contains("payload"), "{bare:?}");
}

async fn a_tail_begins_at_a_time(setup: Setup) {
    setup.publish("old").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let since = SystemTime::now();
    setup.publish("new").await;
    let ago = format!("{}ms", since.elapsed().unwrap().as_millis() + 700);
    let arguments = ["consume", &setup.url, &setup.topic, "--from", &ago, "--count", "1", "--json"];
    let outcome = traced_broker(&arguments).await;
    if !setup.keeps() {
        outcome.ends_with(2).complains(&["cannot begin at a time"]);
        return;
    }
    let outcome = outcome.ends_with(0).prints(&[r#""payload":"new""#]);
    let shown: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    let arguments = ["--from", shown["timestamp"].as_str().unwrap(), "--for", "2s"];
    let again = traced_broker(&[&["consume", &setup.url, &setup.topic][..], &arguments].concat()).await.ends_with(0);
    assert!(again.out.contains("\n  new\n") && !again.out.contains("\n  old\n"), "{again:?}");
}

async fn a_member_of_a_group_takes_what_it_prints(setup: Setup) {
    setup.make_group("workers").await;
    for number in 0..5 {
        setup.publish(&number.to_string()).await;
    }
    let arguments = ["consume", &setup.url, &setup.topic, "--group", "workers", "--count", "2", "--json"];
    let outcome = traced_broker(&arguments).await.ends_with(0).prints(&[r#""payload":"0""#, r#""payload":"1""#]);
    assert_eq!(outcome.out.lines().count(), 2, "{outcome:?}");
    let mut rest: Vec<String> = setup.receive("workers", 3).await.iter().map(text).collect();
    // Prefetched messages that were returned may be redelivered in another order.
    rest.sort();
    assert_eq!(rest, ["2", "3", "4"]);
    setup.assert_no_more("workers").await;
}

async fn a_tail_makes_nothing(setup: Setup) {
    for command in ["consume", "doctor"] {
        let outcome = traced_broker(&[command, &setup.url, &setup.topic, "--for", "5s"]).await.ends_with(2);
        outcome.complains(&[&setup.topic, "exist", "topology=create"].map(|word| {
            // JetStream reports a missing stream instead of a missing topic.
            if setup.kind == Kind::Nats && word == "exist" { "no stream takes this topic" } else { word }
        }));
    }
    let checking = connect(format!("{}?topology=check", setup.url)).await.unwrap();
    let missing = checking.subscribe(Subscription::new(&setup.topic).at_most_once()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
}

/// Runs `traced-broker … | head -n 1` in a shell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_when_nobody_reads_on() {
    let setup = Setup::new(Kind::Redis).await;
    for _ in 0..2_000 {
        setup.publish("a line of some length, so that a pipe is full at some time").await;
    }
    let (url, topic) = (setup.url.clone(), setup.topic.clone());
    let piped = tokio::task::spawn_blocking(move || {
        let line = r#""$0" consume "$1" "$2" --from earliest --json | head -n 1; echo "${PIPESTATUS[0]}""#;
        let program = env!("CARGO_BIN_EXE_traced-broker");
        Command::new("bash").args(["-c", line, program, &url, &topic]).stdin(Stdio::null()).output().unwrap()
    });
    let piped = piped.await.unwrap();
    let out = String::from_utf8(piped.stdout).unwrap();
    assert!(out.ends_with("}\n0\n") && out.lines().count() == 2, "{out}");
    assert_eq!(String::from_utf8(piped.stderr).unwrap(), "");
}

/// A work queue delivers each message to only one reader, so a tail would take it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_work_queue_is_left_alone() {
    use async_nats::jetstream::{self, stream};
    let setup = Setup::new(Kind::Nats).await;
    let context = jetstream::new(async_nats::connect(&setup.url).await.unwrap());
    let (name, subjects) = (setup.topic.clone(), vec![setup.topic.clone()]);
    let retention = stream::RetentionPolicy::WorkQueue;
    context.create_stream(stream::Config { name, subjects, retention, ..Default::default() }).await.unwrap();
    setup.publish("work").await;
    for [command, start] in [["consume", "earliest"], ["doctor", "earliest"], ["consume", "latest"]] {
        let arguments = [command, &setup.url, &setup.topic, "--from", start, "--for", "5s"];
        let outcome = traced_broker(&arguments).await.ends_with(2);
        outcome.complains(&["the stream is a work queue"]);
    }
    assert_eq!(text(&setup.receive("workers", 1).await[0]), "work");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_hears_core_nats() {
    let setup = Setup::new(Kind::Nats).await;
    let url = format!("{}?mode=core", setup.url);
    let mut tail = Running::start(&["consume", &url, &setup.topic, "--json"]);
    let core = connect(&url).await.unwrap();
    let core = Setup { broker: core, url, topic: setup.topic.clone(), kind: Kind::Nats };
    warm_up(&core, &mut tail).await;
    tail.interrupt().await.ends_with(0);
}
