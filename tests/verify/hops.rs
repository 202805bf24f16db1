//! Sends paired with processings, and the time in between.

use std::time::Duration;

use traced_broker::verify::{HumanDuration, Latencies};

use crate::build::{Span, internal, process, send, server, traces};
use crate::scenes::{batch, dead_lettered, order, retried};

/// Send, process, attempt, `true` if redelivered, queue time in microseconds, `true` if measured.
type Row = (String, String, u32, bool, u128, bool);

fn rows(spans: &[Span]) -> Vec<Row> {
    let traces = traces(spans);
    let row = |hop: &traced_broker::verify::QueueHop<'_>| {
        let send = hop.send.map_or_else(String::new, |send| send.name.clone());
        let (process, micros) = (hop.process.name.clone(), hop.queue.as_micros());
        (send, process, hop.attempt, hop.is_redelivery(), micros, hop.measured)
    };
    traces.hops().iter().map(row).collect()
}

fn row(send: &str, process: &str, attempt: u32, again: bool, micros: u128, measured: bool) -> Row {
    (send.into(), process.into(), attempt, again, micros, measured)
}

#[test]
fn the_broker_s_own_measure_comes_first() {
    let expected = [
        row("send orders", "process orders", 1, false, 12_300, true),
        row("send notifications", "process notifications", 1, false, 12_650, true),
    ];
    assert_eq!(rows(&order()), expected);
}

#[test]
fn without_it_the_gap_between_the_spans_counts() {
    let spans = [
        server("api", 1, "POST /", (0, 10)),
        send("api", 2, "orders", (2, 7)).child_of(1),
        process("worker", 3, "orders", 2, (30, 40)),
        process("auditor", 4, "orders", 2, (35, 40)).queued(-0.5),
        process("indexer", 5, "orders", 2, (36, 40)).queued(f64::MAX),
    ];
    let gap = |micros| row("send orders", "process orders", 1, false, micros, false);
    assert_eq!(rows(&spans), [gap(23), gap(28), gap(29)]);
}

#[test]
fn redeliveries_are_counted_and_kept_out_of_the_latencies() {
    let attempt = |number, again, micros| row("send orders", "process orders", number, again, micros, true);
    let spans = retried();
    assert_eq!(rows(&spans), [attempt(1, false, 7_200), attempt(2, true, 67_200), attempt(3, true, 179_200)]);
    let traces = traces(&spans);
    let latencies = Latencies::of(&traces.hops());
    assert_eq!((latencies.len(), latencies.quantile(0.99)), (1, Some(Duration::from_micros(7_200))));
}

#[test]
fn a_dead_letter_waits_from_when_it_was_sent_on() {
    let rows = rows(&dead_lettered());
    assert_eq!(rows[1], row("send orders", "process orders", 2, true, 30_000, false));
    assert_eq!(rows[2], row("send orders.dead", "process orders.dead", 1, false, 17_500, false));
}

#[test]
fn each_message_of_a_batch_has_its_hop() {
    let expected = [7_000, 8_000, 9_000, 10_000].map(|us| row("send orders", "process orders", 1, false, us, true));
    assert_eq!(rows(&batch()), expected);
    // A value on the span as a whole does not apply to any single message.
    let mut spans = batch();
    let process = spans.pop().unwrap().queued(9.0);
    let links: Vec<_> = process.json["links"].as_array().unwrap().clone();
    let bare = links.into_iter().map(|mut link| {
        link["attributes"] = serde_json::json!([]);
        link
    });
    spans.push(process.clone().set("links", bare.collect()));
    assert_eq!(rows(&spans), [8_500; 4].map(|us| row("send orders", "process orders", 1, false, us, false)));
    // The batch was processed in another trace, which alone does not show the sender.
    let traces = traces(&batch());
    let trace = traces.get(crate::build::JOB.parse().unwrap()).unwrap();
    assert!(trace.hops().is_empty());
}

#[test]
fn an_unknown_sender_does_not_hide_the_wait() {
    let lost = process("worker", 3, "orders", 2, (30, 40)).queued(0.001);
    assert_eq!(rows(&[lost]), [row("", "process orders", 1, false, 1_000, true)]);
    assert!(rows(&[process("worker", 3, "orders", 2, (30, 40))]).is_empty());
}

#[test]
fn rabbitmq_names_the_queue_after_the_routing_key() {
    let forward = |id, topic, period| send("worker", id, topic, period).links(2).set("kind", serde_json::json!(3));
    let spans = [
        server("api", 1, "POST /", (0, 10)),
        send("api", 2, "events:orders", (2, 7)).child_of(1),
        internal("worker", 3, "dispatch", (8, 90)).child_of(1),
        forward(4, "events:orders.dead", (10, 12)).child_of(3),
        forward(5, "events:retry", (14, 16)).child_of(3),
        forward(6, "events:retry", (18, 20)).child_of(3),
        forward(7, "events:retry", (60, 61)).child_of(3),
        process("worker", 8, "events:retry:retries", 2, (50, 55)),
    ];
    // The later of the two sends before it; neither the one to another topic nor the one after it.
    assert_eq!(rows(&spans), [row("send events:retry", "process events:retry:retries", 1, false, 30, false)]);
}

#[test]
fn quantiles_by_nearest_rank() {
    let latencies: Latencies = (1..=200).rev().map(Duration::from_millis).collect();
    let quantile = |share| latencies.quantile(share).unwrap().as_millis();
    assert_eq!([0.0, 0.5, 0.99, 0.995, 1.0, 7.0].map(quantile), [1, 100, 198, 199, 200, 200]);
    assert_eq!(Latencies::default().quantile(0.5), None);
}

#[test]
fn durations_for_people() {
    let cases = [
        (0, "0"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (9_994, "9.99 µs"),
        (9_995, "10.0 µs"),
        (99_950, "100 µs"),
        (999_499, "999 µs"),
        (999_500, "1.00 ms"),
        (12_650_000, "12.7 ms"),
        (999_500_000, "1.00 s"),
        (59_949_999_999, "59.9 s"),
        (59_950_000_000, "1m 00s"),
        (3_599_400_000_000, "59m 59s"),
        (3_599_500_000_000, "1h 00m"),
        (90_061_000_000_000, "1d 01h"),
        (u64::MAX, "213503d"),
    ];
    for (nanos, text) in cases {
        assert_eq!(HumanDuration(Duration::from_nanos(nanos)).to_string(), text, "{nanos} ns");
    }
}
