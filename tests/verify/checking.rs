//! Whole traces, and a broken trace for every way in which messages can break one.

use serde_json::json;
use traced_broker::verify::FindingKind::*;
use traced_broker::verify::check as check_traces;

use crate::build::{TRACE, check, finds, internal, process, send, server, span, traces, with};
use crate::scenes::{batch, dead_lettered, job, order, retried, unicode};

#[test]
fn whole_traces_are_whole() {
    for scene in [order(), retried(), dead_lettered(), [order(), job()].concat(), batch(), unicode()] {
        finds(&scene, &[]);
    }
}

#[test]
fn nothing_seen_proves_nothing() {
    let report = check(&[]);
    assert!(!report.is_whole());
    assert_eq!((report.traces(), report.whole(), report.broken()), (0, 0, 0));
}

#[test]
fn wrong_kinds() {
    for (position, kind, id) in [(1, 1, 2), (2, 1, 3), (2, 2, 3), (6, 4, 7), (4, 5, 5)] {
        finds(&with(order(), order().swap_remove(position).set("kind", json!(kind))), &[(WrongKind, id)]);
    }
    let create = batch().swap_remove(1).set("kind", json!(1));
    finds(&with(batch(), create), &[(WrongKind, 11)]);
    // A send span is a client if its messages already have contexts.
    finds(&with(order(), order().swap_remove(1).set("kind", json!(3))), &[]);
    for (operation, good, bad) in [("receive", 3, 4), ("settle", 3, 5)] {
        let spans = |kind| [span("worker", 1, "x", kind, (0, 5)).text("messaging.operation.type", operation)];
        finds(&spans(good), &[]);
        finds(&spans(bad), &[(WrongKind, 1)]);
    }
}

#[test]
fn no_context_at_all() {
    let lost = process("fulfillment-worker", 3, "orders", 2, (9_000, 12_000)).unlinked();
    let lost = lost.set("parentSpanId", json!("")).in_trace("0000000000000000000000000000abcd");
    let spans = [order().swap_remove(0), order().swap_remove(1), lost];
    let messages = finds(&spans, &[(NoContext, 3)]);
    assert!(messages[0].contains("the producer wrote no context header"), "{messages:?}");
    let report = check_traces(&traces(&spans));
    assert_eq!((report.traces(), report.whole(), report.broken()), (2, 1, 1));
    assert!(report.of(TRACE.parse().unwrap()).is_empty());
}

#[test]
fn context_of_the_wrong_span() {
    // The context around the send was injected, not that of the send span.
    let injected = process("fulfillment-worker", 3, "orders", 1, (14_100, 23_900));
    let messages = finds(&with(order(), injected), &[(WrongContext, 3)]);
    assert!(messages[0].contains("continues `POST /orders` (order-api)"), "{messages:?}");
    // A root with a link, but not to a message.
    let linked = process("reconciler", 23, "orders", 2, (950_000, 960_000)).unlinked();
    let linked = linked.links_to(crate::build::JOB, 22, &[]).in_trace("0000000000000000000000000000abcd");
    let linked = linked.set("parentSpanId", json!(""));
    finds(&[order(), job(), vec![linked]].concat(), &[(WrongContext, 23)]);
}

#[test]
fn child_without_a_link() {
    let unlinked = order().swap_remove(2).unlinked();
    finds(&with(order(), unlinked.clone()), &[(NoCreationLink, 3)]);
    // A link to another span does not make up for it.
    finds(&with(order(), unlinked.links(1)), &[(NoCreationLink, 3)]);
}

#[test]
fn processed_before_sent() {
    let early = process("fulfillment-worker", 3, "orders", 2, (390, 23_900));
    let messages = finds(&with(order(), early), &[(ProcessedBeforeSent, 3)]);
    assert!(messages[0].contains("starts 10.0 µs before `send orders` (order-api)"), "{messages:?}");
    // In a batch the send counts, not the earlier creation.
    let batched = |start: u64| json!((crate::build::EPOCH + start * 1_000).to_string());
    let process = |start| with(batch(), batch().pop().unwrap().set("startTimeUnixNano", batched(start)));
    finds(&process(790), &[(ProcessedBeforeSent, 3); 4]);
    finds(&process(800), &[]);
}

#[test]
fn processing_may_start_before_the_confirm() {
    let spans = with(order(), process("fulfillment-worker", 3, "orders", 2, (1_000, 23_900)));
    finds(&spans, &[]);
    let traces = traces(&spans);
    assert!(traces.hops()[0].queue.is_zero());
}

#[test]
fn process_span_without_length() {
    // Its children are not reported as well, because there is only one cause.
    let empty = process("fulfillment-worker", 3, "orders", 2, (14_100, 14_100));
    finds(&with(order(), empty), &[(EmptyProcess, 3)]);
}

#[test]
fn work_outside_the_process_span() {
    let ended = process("fulfillment-worker", 3, "orders", 2, (14_100, 18_500));
    finds(&with(order(), ended), &[(OutsideProcess, 5), (OutsideProcess, 6)]);
    let late = process("fulfillment-worker", 3, "orders", 2, (14_310, 23_900));
    finds(&with(order(), late), &[(OutsideProcess, 4)]);
    // A handler may leave work running, and another service has other clocks.
    let long = internal("fulfillment-worker", 4, "reserve stock", (14_300, 90_000)).child_of(3);
    finds(&with(order(), long), &[]);
    let remote = internal("stock", 4, "reserve", (14_000, 15_000)).child_of(3);
    finds(&with(order(), remote), &[]);
    let called_itself = server("fulfillment-worker", 4, "POST /reserve", (24_000, 25_000)).child_of(3);
    finds(&with(order(), called_itself), &[]);
}

#[test]
fn spans_without_an_operation_type_count_by_their_kind() {
    let bare = |id, name, kind, period| span("legacy", id, name, kind, period);
    let sent = bare(1, "orders publish", 4, (0, 5));
    finds(&[sent.clone(), bare(2, "orders process", 5, (9, 20)).child_of(1).links(1)], &[]);
    finds(&[sent, bare(2, "orders process", 5, (9, 20)).child_of(1)], &[(NoCreationLink, 2)]);
}

#[test]
fn the_report_in_words() {
    let two = [order(), job()].concat();
    assert_eq!(check(&two).to_string(), "traces: 2 whole, 0 broken · queued: 2 · p50 12.3 ms · p99 12.7 ms");
    let text = check(&job()).to_string();
    assert!(text.starts_with("traces: 0 whole, 1 broken\ntrace 9f86d081884c7d659a2feaa0c55ad015, span 0000"), "{text}");
    assert!(check(&[send("api", 1, "orders", (0, 1))]).latencies().is_empty());
}
