//! Tests of `doctor` with known shares of contexts.

use serde_json::{Value, json};

use crate::command::{Outcome, traced_broker};
use crate::running::Running;
use crate::setup::{PARENT, Setup, on_each_broker};
use crate::support::Kind;

on_each_broker! {
    the_shares_are_those_of_the_population,
    people_get_a_table_with_examples,
    nothing_to_look_at_is_no_result,
}

const SECRET: &str = "topsecret";
const OTHER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-00";
const B3: &str = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1";

/// Returns the headers of a message; any twenty messages in a row have the same shares.
fn headers(number: usize) -> Vec<(&'static str, &'static str)> {
    match number % 20 {
        0..10 => vec![("traceparent", PARENT), ("service-name", "checkout"), ("tracestate", "dd=s:1")],
        10 => vec![("traceparent", OTHER), ("tracestate", "dd=s:1")],
        11..14 => vec![("service-name", "legacy"), ("authorization", SECRET), ("Cookie", SECRET)],
        14 => vec![("service-name", "legacy"), ("traceparent", "00-7-7-01")],
        15 => vec![("traceparent", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01")],
        16 => vec![("traceparent", PARENT), ("Traceparent", OTHER)],
        17..19 => vec![("b3", B3)],
        _ => vec![("x-datadog-trace-id", "7"), ("x-datadog-parent-id", "8")],
    }
}

async fn populate(setup: &Setup, messages: usize) {
    for number in 0..messages {
        setup.publish_raw(&format!("{SECRET} {number}"), &headers(number)).await;
    }
}

/// Inspects forty messages: stored ones, or on a broker without storage, ones that are being
/// published.
async fn examine(setup: &Setup, options: &[&str]) -> Outcome {
    let arguments = [&["doctor", &setup.url, &setup.topic, "--count", "40", "--for", "50s"], options].concat();
    if setup.keeps() {
        populate(setup, 40).await;
        return traced_broker(&[&arguments[..], &["--from", "earliest"]].concat()).await;
    }
    setup.make_group("workers").await;
    let doctor = Running::start(&arguments);
    let mut ended = Box::pin(doctor.end());
    loop {
        tokio::select! {
            biased;
            outcome = &mut ended => return outcome,
            () = populate(setup, 20) => {}
        }
    }
}

async fn the_shares_are_those_of_the_population(setup: Setup) {
    let outcome = examine(&setup, &["--json", "--min-valid", "56"]).await.ends_with(1).never_shows(SECRET);
    let report: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((&report["messages"], &report["valid_percent"]), (&json!(40), &json!(55.0)));
    let duplicated = report["contexts"].as_array().unwrap().iter().find(|context| context["state"] == "duplicated");
    if duplicated.is_none() {
        // RabbitMQ's headers are a table, so its client libraries write only one value for each
        // name.
        assert_eq!(setup.kind, Kind::RabbitMq);
    }
    let expected = json!([
        { "state": "valid", "detail": null, "messages": 22 },
        { "state": "missing", "detail": null, "messages": 6 },
        { "state": "malformed", "detail": "character", "messages": 2 },
        { "state": "malformed", "detail": "length", "messages": 2 },
        { "state": "duplicated", "detail": "conflicting", "messages": 2 },
        { "state": "foreign", "detail": "b3", "messages": 4 },
        { "state": "foreign", "detail": "datadog", "messages": 2 },
    ]);
    assert_eq!(report["contexts"], expected);
    let producer = |name: &str| {
        let all = report["producers"].as_array().unwrap();
        let one =
            all.iter().find(|producer| producer["producer"] == name).unwrap_or_else(|| panic!("{name}: {report}"));
        (one["messages"].as_u64().unwrap(), one["valid_percent"].as_f64().unwrap())
    };
    assert_eq!(producer("checkout"), (20, 100.0));
    assert_eq!(producer("legacy"), (8, 0.0));
    assert_eq!(producer("tracestate dd"), (2, 100.0));
    assert_eq!(producer("(does not say)"), (10, 0.0));
    assert_eq!(
        report["producers"][0]["producer"], "(does not say)",
        "the producer with the most invalid contexts is first"
    );
    let example = &report["examples"][0];
    assert_eq!((&example["state"], &example["headers"]["authorization"]), (&json!("missing"), &json!(["***"])));
    if setup.kind == Kind::RabbitMq {
        // The group still gets every message.
        let messages = setup.receive("workers", 40).await;
        assert!(messages.iter().all(|message| message.attempt() == 1));
    } else {
        assert_eq!(setup.receive("workers", 40).await.len(), 40);
    }
}

async fn people_get_a_table_with_examples(setup: Setup) {
    let outcome = examine(&setup, &["--min-valid", "55%"]).await.ends_with(0).never_shows(SECRET);
    let outcome = outcome.prints(&[
        &format!("{} at ", setup.topic),
        ": 40 messages in ",
        "  valid",
        "   55.0 %  ███",
        "  foreign: datadog",
        "    5.0 %  ██",
        "  → b3: read by this library with .dialects([Dialect::B3])",
        "  → datadog: not read by this library",
        "  legacy",
        "6 missing",
        "  for example, missing",
        "    authorization: ***",
        "✓ 55.0 % valid, at least 55 %",
    ]);
    assert!(outcome.out.lines().all(|line| console::measure_text_width(line) <= 100), "{}", outcome.out);
    if setup.keeps() {
        let arguments = ["doctor", &setup.url, &setup.topic, "--from", "earliest", "--count", "40", "--show-payload"];
        traced_broker(&arguments).await.ends_with(0).prints(&["    topsecret 11"]);
    }
}

async fn nothing_to_look_at_is_no_result(setup: Setup) {
    setup.make_group("workers").await;
    let outcome = traced_broker(&["doctor", &setup.url, &setup.topic, "--for", "300ms"]).await.ends_with(2);
    outcome.complains(&["no message arrived from", "300 ms", "--from earliest"]);
}
