//! A broken trace for every way in which any trace can break.

use serde_json::json;
use traced_broker::verify::FindingKind::*;

use crate::build::{JOB, Span, TRACE, finds, internal, span, with, without};
use crate::scenes::{batch, job, order};

#[test]
fn phantom_parent() {
    // The link to the same missing span is not reported separately.
    let messages = finds(&without(order(), 2), &[(MissingParent, 3)]);
    assert_eq!(
        messages,
        ["`process orders` (fulfillment-worker) is a child of span 0000000000000002, which was \
             not exported: the sender injected a context that belongs to no recorded span, or its \
             span was sampled away, was dropped by its exporter, or has not arrived yet"]
    );
    finds(
        &with(order(), internal("fulfillment-worker", 4, "reserve stock", (14_300, 18_300)).child_of(77)),
        &[(MissingParent, 4)],
    );
}

#[test]
fn link_target_not_exported() {
    let changed = |span: fn(Span) -> Span| with(order(), span(order().swap_remove(2)));
    let messages = finds(&changed(|span| span.links(77)), &[(MissingLink, 3)]);
    assert!(messages[0].contains("span 000000000000004d of this trace"), "{messages:?}");
    // The job's order was not read.
    let messages = finds(&job(), &[(MissingLink, 21)]);
    assert!(messages[0].contains(&format!("span 0000000000000003 of trace {TRACE}")), "{messages:?}");
    let messages = finds(&changed(|span| span.links_to("", 0, &[])), &[(MissingLink, 3)]);
    assert!(messages[0].contains("a context without ids"), "{messages:?}");
}

#[test]
fn several_roots() {
    let second = internal("fulfillment-worker", 4, "reserve stock", (14_300, 18_300));
    let messages = finds(&with(order(), second), &[(SeveralRoots, 4)]);
    assert!(messages[0].contains("`POST /orders` (order-api) is the root"), "{messages:?}");
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
    let messages = finds(&[internal("a", 1, "own parent", (0, 9)).child_of(1)], &[(ParentCycle, 1)]);
    assert!(messages[0].contains("one step up"), "{messages:?}");
}

#[test]
fn id_used_twice() {
    let twin = internal("order-api", 8, "validate", (100, 200)).child_of(1);
    // The id stands for the earlier span; the finding is on the later one.
    let messages = finds(&[order(), vec![twin]].concat(), &[(DuplicateSpan, 8)]);
    assert!(messages[0].starts_with("`render e-mail` (notification-service) has the id"), "{messages:?}");
}

#[test]
fn lost_links() {
    let process = || batch().pop().unwrap();
    let messages = finds(&with(batch(), process().set("droppedLinksCount", json!(60))), &[(LostLinks, 3)]);
    assert!(messages[0].contains("lost 60 of its 64 links"), "{messages:?}");
    let mut short = process();
    short.json["links"].as_array_mut().unwrap().pop();
    let messages = finds(&with(batch(), short.clone()), &[(LostLinks, 3)]);
    assert!(messages[0].contains("handled 4 messages but links only 3"), "{messages:?}");
    // Excess links may be on a child span with the same name.
    let child = |name: &str| {
        let child = span("fulfillment-worker", 9, name, 5, (12_000, 30_000));
        child.child_of(3).links(14).in_trace(JOB)
    };
    finds(&[with(batch(), short.clone()), vec![child("process orders")]].concat(), &[]);
    finds(&[with(batch(), short), vec![child("process shipments")]].concat(), &[(LostLinks, 3)]);
}

#[test]
fn missing_times() {
    let open = order().swap_remove(6).set("endTimeUnixNano", json!("0"));
    finds(&with(order(), open), &[(Unfinished, 7)]);
    let mut unknown = order().swap_remove(3);
    unknown.json.as_object_mut().unwrap().remove("startTimeUnixNano");
    finds(&with(order(), unknown), &[(Unfinished, 4)]);
}

#[test]
fn reversed_times() {
    finds(
        &with(order(), internal("fulfillment-worker", 4, "reserve stock", (18_300, 14_300)).child_of(3)),
        &[(ReversedTimes, 4)],
    );
}
