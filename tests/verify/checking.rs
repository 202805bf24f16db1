//! For every sort of finding a trace that is broken in just that way.

use serde_json::json;
use traced_broker::verify::FindingKind::{self, *};
use traced_broker::verify::check as check_traces;

use crate::build::{
    Span, TRACE, check, internal, process, send, server, span, span_id, traces, with, without,
};
use crate::scenes::{batch, dead_lettered, job, order, retried, unicode};

/// Asserts that exactly these findings are made, on the spans with these ids.
#[track_caller]
fn finds(spans: &[Span], expected: &[(FindingKind, u64)]) -> Vec<String> {
    let report = check(spans);
    let found: Vec<_> = report
        .findings()
        .iter()
        .map(|finding| (finding.kind, finding.span.to_string()))
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(kind, id)| (*kind, span_id(*id)))
        .collect();
    assert_eq!(found, expected, "{report}");
    assert_eq!(report.is_whole(), expected.is_empty());
    report
        .findings()
        .iter()
        .map(|finding| finding.message.clone())
        .collect()
}

#[test]
fn whole_traces_are_whole() {
    for scene in [
        order(),
        retried(),
        dead_lettered(),
        [order(), job()].concat(),
        batch(),
        unicode(),
    ] {
        finds(&scene, &[]);
    }
}

#[test]
fn nothing_seen_proves_nothing() {
    let report = check(&[]);
    assert!(!report.is_whole());
    assert_eq!(
        (report.traces(), report.whole(), report.broken()),
        (0, 0, 0)
    );
}

#[test]
fn phantom_parent() {
    // The link to the same missing span is not reported apart.
    let messages = finds(&without(order(), 2), &[(MissingParent, 3)]);
    assert_eq!(
        messages,
        [
            "`process orders` (fulfillment-worker) is a child of span 0000000000000002, which was not exported: the sender \
          injected a context that belongs to no recorded span, or its span was sampled away, was dropped by its \
          exporter, or has not arrived yet"
        ]
    );
    finds(
        &with(
            order(),
            internal("fulfillment-worker", 4, "reserve stock", (14_300, 18_300)).child_of(77),
        ),
        &[(MissingParent, 4)],
    );
}

#[test]
fn link_target_not_exported() {
    let changed = |span: fn(Span) -> Span| with(order(), span(order().swap_remove(2)));
    let messages = finds(&changed(|span| span.links(77)), &[(MissingLink, 3)]);
    assert!(
        messages[0].contains("span 000000000000004d of this trace"),
        "{messages:?}"
    );
    // The job's order was not read.
    let messages = finds(&job(), &[(MissingLink, 21)]);
    assert!(
        messages[0].contains(&format!("span 0000000000000003 of trace {TRACE}")),
        "{messages:?}"
    );
    let messages = finds(
        &changed(|span| span.links_to("", 0, &[])),
        &[(MissingLink, 3)],
    );
    assert!(
        messages[0].contains("a context without ids"),
        "{messages:?}"
    );
}

#[test]
fn several_roots() {
    let second = internal("fulfillment-worker", 4, "reserve stock", (14_300, 18_300));
    let messages = finds(&with(order(), second), &[(SeveralRoots, 4)]);
    assert!(
        messages[0].contains("`POST /orders` (order-api) is the root"),
        "{messages:?}"
    );
}

#[test]
fn cycles() {
    let around = [
        internal("a", 1, "one", (0, 9)).child_of(3),
        internal("a", 2, "two", (1, 8)).child_of(1),
        internal("a", 3, "three", (2, 7)).child_of(2),
        internal("a", 4, "beside", (3, 6)).child_of(3),
    ];
    let messages = finds(&around, &[(ParentCycle, 1)]);
    assert!(messages[0].contains("3 steps up"), "{messages:?}");
    let messages = finds(
        &[internal("a", 1, "own parent", (0, 9)).child_of(1)],
        &[(ParentCycle, 1)],
    );
    assert!(messages[0].contains("one step up"), "{messages:?}");
}

#[test]
fn id_used_twice() {
    let twin = internal("order-api", 8, "validate", (100, 200)).child_of(1);
    // The earlier one is what the id stands for; the finding is on the later one.
    let messages = finds(&[order(), vec![twin]].concat(), &[(DuplicateSpan, 8)]);
    assert!(
        messages[0].starts_with("`render e-mail` (notification-service) has the id"),
        "{messages:?}"
    );
}

#[test]
fn lost_links() {
    let process = || batch().pop().unwrap();
    let messages = finds(
        &with(batch(), process().set("droppedLinksCount", json!(60))),
        &[(LostLinks, 3)],
    );
    assert!(
        messages[0].contains("lost 60 of its 64 links"),
        "{messages:?}"
    );
    let mut short = process();
    short.json["links"].as_array_mut().unwrap().pop();
    let messages = finds(&with(batch(), short), &[(LostLinks, 3)]);
    assert!(
        messages[0].contains("handled 4 messages but links only 3"),
        "{messages:?}"
    );
}

#[test]
fn missing_times() {
    let open = order().swap_remove(6).set("endTimeUnixNano", json!("0"));
    finds(&with(order(), open), &[(Unfinished, 7)]);
    let mut unknown = order().swap_remove(3);
    unknown
        .json
        .as_object_mut()
        .unwrap()
        .remove("startTimeUnixNano");
    finds(&with(order(), unknown), &[(Unfinished, 4)]);
}

#[test]
fn reversed_times() {
    finds(
        &with(
            order(),
            internal("fulfillment-worker", 4, "reserve stock", (18_300, 14_300)).child_of(3),
        ),
        &[(ReversedTimes, 4)],
    );
}

#[test]
fn wrong_kinds() {
    for (position, kind, id) in [(1, 1, 2), (2, 1, 3), (2, 2, 3), (6, 4, 7), (4, 5, 5)] {
        finds(
            &with(
                order(),
                order().swap_remove(position).set("kind", json!(kind)),
            ),
            &[(WrongKind, id)],
        );
    }
    let create = batch().swap_remove(1).set("kind", json!(1));
    finds(&with(batch(), create), &[(WrongKind, 11)]);
    // A send whose messages have their contexts already is a client.
    finds(
        &with(order(), order().swap_remove(1).set("kind", json!(3))),
        &[],
    );
    for (operation, good, bad) in [("receive", 3, 4), ("settle", 3, 5)] {
        let spans = |kind| {
            [span("worker", 1, "x", kind, (0, 5)).text("messaging.operation.type", operation)]
        };
        finds(&spans(good), &[]);
        finds(&spans(bad), &[(WrongKind, 1)]);
    }
}

#[test]
fn no_context_at_all() {
    let lost = process("fulfillment-worker", 3, "orders", 2, (9_000, 12_000)).unlinked();
    let lost = lost
        .set("parentSpanId", json!(""))
        .in_trace("0000000000000000000000000000abcd");
    let spans = [order().swap_remove(0), order().swap_remove(1), lost];
    let messages = finds(&spans, &[(NoContext, 3)]);
    assert!(
        messages[0].contains("the producer wrote no context header"),
        "{messages:?}"
    );
    let report = check_traces(&traces(&spans));
    assert_eq!(
        (report.traces(), report.whole(), report.broken()),
        (2, 1, 1)
    );
    assert!(report.of(TRACE.parse().unwrap()).is_empty());
}

#[test]
fn context_of_the_wrong_span() {
    // The context around the send was injected, not the send's own.
    let injected = process("fulfillment-worker", 3, "orders", 1, (14_100, 23_900));
    let messages = finds(&with(order(), injected), &[(WrongContext, 3)]);
    assert!(
        messages[0].contains("continues `POST /orders` (order-api)"),
        "{messages:?}"
    );
    // A root that links something, but no message.
    let linked = process("reconciler", 23, "orders", 2, (950_000, 960_000)).unlinked();
    let linked = linked
        .links_to(crate::build::JOB, 22, &[])
        .in_trace("0000000000000000000000000000abcd");
    let linked = linked.set("parentSpanId", json!(""));
    finds(
        &[order(), job(), vec![linked]].concat(),
        &[(WrongContext, 23)],
    );
}

#[test]
fn child_without_a_link() {
    let unlinked = order().swap_remove(2).unlinked();
    finds(&with(order(), unlinked.clone()), &[(NoCreationLink, 3)]);
    // A link to something else does not make up for it.
    finds(&with(order(), unlinked.links(1)), &[(NoCreationLink, 3)]);
}

#[test]
fn processed_before_sent() {
    let early = process("fulfillment-worker", 3, "orders", 2, (390, 23_900));
    let messages = finds(&with(order(), early), &[(ProcessedBeforeSent, 3)]);
    assert!(
        messages[0].contains("starts 10.0 µs before `send orders` (order-api)"),
        "{messages:?}"
    );
    // In a batch it is the send that counts, not the earlier creation.
    let batched = |start: u64| json!((crate::build::EPOCH + start * 1_000).to_string());
    let process = |start| {
        with(
            batch(),
            batch()
                .pop()
                .unwrap()
                .set("startTimeUnixNano", batched(start)),
        )
    };
    finds(&process(790), &[(ProcessedBeforeSent, 3); 4]);
    finds(&process(800), &[]);
}

#[test]
fn processing_may_start_before_the_confirm() {
    let spans = with(
        order(),
        process("fulfillment-worker", 3, "orders", 2, (1_000, 23_900)),
    );
    finds(&spans, &[]);
    let traces = traces(&spans);
    assert!(traces.hops()[0].queue.is_zero());
}

#[test]
fn process_span_without_length() {
    // Its children are not reported as well: there is one cause.
    let empty = process("fulfillment-worker", 3, "orders", 2, (14_100, 14_100));
    finds(&with(order(), empty), &[(EmptyProcess, 3)]);
}

#[test]
fn work_outside_the_process_span() {
    let ended = process("fulfillment-worker", 3, "orders", 2, (14_100, 18_500));
    finds(
        &with(order(), ended),
        &[(OutsideProcess, 5), (OutsideProcess, 6)],
    );
    let late = process("fulfillment-worker", 3, "orders", 2, (14_310, 23_900));
    finds(&with(order(), late), &[(OutsideProcess, 4)]);
    // Work left running is the handler's own affair, and another service has other clocks.
    let long = internal("fulfillment-worker", 4, "reserve stock", (14_300, 90_000)).child_of(3);
    finds(&with(order(), long), &[]);
    let remote = server("stock", 4, "POST /reserve", (14_000, 15_000)).child_of(3);
    finds(&with(order(), remote), &[]);
}

#[test]
fn spans_without_an_operation_type_count_by_their_kind() {
    let bare = |id, name, kind, period| span("legacy", id, name, kind, period);
    let sent = bare(1, "orders publish", 4, (0, 5));
    finds(
        &[
            sent.clone(),
            bare(2, "orders process", 5, (9, 20)).child_of(1).links(1),
        ],
        &[],
    );
    finds(
        &[sent, bare(2, "orders process", 5, (9, 20)).child_of(1)],
        &[(NoCreationLink, 2)],
    );
}

#[test]
fn the_report_in_words() {
    let two = [order(), job()].concat();
    assert_eq!(
        check(&two).to_string(),
        "traces: 2 whole, 0 broken · queued: 2 · p50 12.3 ms · p99 12.7 ms"
    );
    let text = check(&job()).to_string();
    assert!(
        text.starts_with(
            "traces: 0 whole, 1 broken\ntrace 9f86d081884c7d659a2feaa0c55ad015, span 0000"
        ),
        "{text}"
    );
    assert!(
        check(&[send("api", 1, "orders", (0, 1))])
            .latencies()
            .is_empty()
    );
}
