//! Traces of the order system, as it exports them.

use serde_json::json;

use crate::build::{JOB, Span, TRACE, internal, process, send, server, span};

const API: &str = "order-api";
const WORKER: &str = "fulfillment-worker";
const NOTIFIER: &str = "notification-service";

/// Returns one order from the HTTP request to the notification: nine spans, two queues.
pub(crate) fn order() -> Vec<Span> {
    vec![
        server(API, 1, "POST /orders", (0, 2_100)),
        send(API, 2, "orders", (400, 1_800)).child_of(1),
        process(WORKER, 3, "orders", 2, (14_100, 23_900)).queued(0.0123).int("messaging.kafka.offset", 42),
        internal(WORKER, 4, "reserve stock", (14_300, 18_300)).child_of(3),
        send(WORKER, 5, "notifications", (19_000, 20_600)).child_of(3),
        span(WORKER, 6, "INSERT shipments", 3, (21_000, 23_200)).child_of(3),
        process(NOTIFIER, 7, "notifications", 5, (33_200, 48_200)).queued(0.01265),
        internal(NOTIFIER, 8, "render e-mail", (34_000, 36_100)).child_of(7),
        span(NOTIFIER, 9, "POST /messages", 3, (37_000, 47_300)).child_of(7),
    ]
}

/// Returns an order whose handler fails twice and then succeeds, redelivered by the broker.
pub(crate) fn retried() -> Vec<Span> {
    let failed = |id, period| process(WORKER, id, "orders", 2, period).error("Unavailable", "stock service timed out");
    vec![
        server(API, 1, "POST /orders", (0, 2_100)),
        send(API, 2, "orders", (400, 1_800)).child_of(1),
        failed(3, (9_000, 19_000)).queued(0.0072).int("traced_broker.delivery.attempt", 1),
        failed(4, (69_000, 81_000)).queued(0.0672).int("traced_broker.delivery.attempt", 2),
        process(WORKER, 5, "orders", 2, (181_000, 204_000)).queued(0.1792).int("traced_broker.delivery.attempt", 3),
        internal(WORKER, 6, "reserve stock", (182_000, 199_000)).child_of(5),
    ]
}

/// Returns an order that can never succeed: after two attempts its message is sent to the
/// dead-letter topic.
pub(crate) fn dead_lettered() -> Vec<Span> {
    let failed = |id, period| process(WORKER, id, "orders", 2, period).error("InvalidOrder", "quantity -4 is negative");
    let forward = span(WORKER, 5, "send orders.dead", 3, (52_000, 53_500));
    vec![
        server(API, 1, "POST /orders", (0, 2_100)),
        send(API, 2, "orders", (400, 1_800)).child_of(1),
        failed(3, (9_000, 12_000)).queued(0.0072),
        failed(4, (42_000, 54_000)),
        forward
            .text("messaging.operation.type", "send")
            .text("messaging.destination.name", "orders.dead")
            .child_of(4)
            .links(2),
        process("dead-letter-desk", 6, "orders.dead", 2, (71_000, 80_000)),
    ]
}

/// Returns a job that runs as a separate root, linked to the order that requested it.
pub(crate) fn job() -> Vec<Span> {
    let root = internal("reconciler", 21, "daily.reconciliation", (900_000, 1_400_000)).in_trace(JOB);
    let read = internal("reconciler", 22, "read ledger", (910_000, 1_100_000)).in_trace(JOB).child_of(21);
    let root = root.links_to(TRACE, 3, &[]).text("job.type", "reconciliation").text("job.trigger", "schedule");
    vec![root, read]
}

/// Returns a batch: a creation context for each of four messages, one send, and one process span
/// that links them all.
pub(crate) fn batch() -> Vec<Span> {
    let create = |id: u64| {
        let start = 200 + 20 * id;
        let span = span(API, id, "create orders", 4, (start, start + 10)).child_of(1);
        span.text("messaging.operation.type", "create").text("messaging.destination.name", "orders")
    };
    let mut spans = vec![server(API, 1, "POST /orders/bulk", (0, 4_000))];
    spans.extend((11..15).map(create));
    let send = span(API, 2, "send orders", 3, (800, 3_500)).child_of(1);
    let send = send.text("messaging.operation.type", "send").text("messaging.destination.name", "orders");
    spans.push((11..15).fold(send, Span::links).int("messaging.batch.message_count", 4));
    let process = process(WORKER, 3, "orders", 1, (12_000, 30_000)).unlinked().set("parentSpanId", json!(""));
    let waited = |id: u64| [("traced_broker.queue.duration", json!({ "doubleValue": 0.001 * (id as f64 - 4.0) }))];
    let process = (11..15).fold(process, |span, id| span.links_to(TRACE, id, &waited(id)));
    spans.push(process.int("messaging.batch.message_count", 4).in_trace(JOB));
    spans
}

/// Returns names in other scripts, and one that tries to colour the terminal.
pub(crate) fn unicode() -> Vec<Span> {
    vec![
        server("注文サービス", 1, "POST /заказы", (0, 2_100)),
        send("注文サービス", 2, "Bestellungen-für-Zürich", (400, 1_800)).child_of(1),
        process("доставка", 3, "Bestellungen-für-Zürich", 2, (14_100, 23_900)).queued(0.0123),
        internal("доставка", 4, "在庫を予約する処理 🚚 cafe\u{301}", (15_000, 18_000)).child_of(3),
        internal("доставка", 5, "\u{1b}[31mred\u{1b}[0m\nand\u{202e} more", (18_000, 21_000)).child_of(3),
    ]
}
