//! Every assertion holds where it should, and otherwise fails with the picture and the name of the
//! break.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use traced_broker::TracedBrokerExt as _;
use traced_broker::testing::{Capture, MOST_SPANS, TestBed};
use traced_broker::{Delivery, HandlerError, Message, Received, Settlement, Subscription, TracePolicy, TracedBroker};

use crate::shop;

/// Returns the panic message of an assertion that must fail.
fn failure<T>(assertion: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(assertion()))).unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).to_owned())
}

/// Asserts that it fails with this message, followed by the picture.
#[track_caller]
fn fails<T>(assertion: impl FnOnce() -> T, expected: &str) {
    let text = failure(assertion);
    let (message, picture) = text.split_once("\n\n").unwrap_or((&text, ""));
    assert_eq!(message, expected);
    assert!(picture.starts_with("trace ") && picture.contains("time  0 ─"), "no picture in {text}");
}

async fn shop() -> TestBed {
    let bed = TestBed::new();
    shop::open(&bed).await;
    for what in ["plain", "flaky", "hopeless"] {
        let api = bed.broker("api");
        let name = format!("POST /orders/{what}");
        bed.in_root_span("api", name, api.publish("orders", Message::new(what))).await.unwrap();
        bed.settled().await.unwrap();
    }
    bed
}

#[tokio::test]
async fn what_happened_can_be_said_in_a_sentence() {
    use Settlement::{Acknowledged, Rejected, Retried};
    let bed = shop().await;
    bed.trace("POST /orders/plain")
        .assert_whole()
        .hops(["orders", "shipments"])
        .attempts("orders", 1)
        .attempts("shipments", 1)
        .outcomes("orders", [Acknowledged])
        .errors("orders", [])
        .not_dead_lettered()
        .services(["api", "worker", "desk"])
        .spans(["POST /orders/plain", "send orders", "process orders", "send shipments", "process shipments"])
        .queued_at_most("orders", Duration::from_secs(10));
    bed.trace("POST /orders/flaky")
        .assert_whole()
        .hops(["orders", "shipments"])
        .attempts("orders", 2)
        .attempts("shipments", 1)
        .outcomes("orders", [Retried, Acknowledged])
        .errors("orders", ["handler_error"])
        .not_dead_lettered();
    bed.trace("POST /orders/hopeless")
        .assert_whole()
        .hops(["orders"])
        .attempts("orders", 3)
        .outcomes("orders", [Retried, Retried, Rejected])
        .errors("orders", ["handler_error"; 3])
        .dead_lettered("orders.dead");
    bed.capture().assert_whole();
    assert!(format!("{:?}", bed.trace("POST /orders/flaky")).contains("┊ retry of orders"));
}

#[tokio::test]
async fn each_assertion_says_what_it_expected_and_what_there_is() {
    let bed = shop().await;
    let [plain, flaky, hopeless] =
        ["plain", "flaky", "hopeless"].map(|what| bed.trace(&format!("POST /orders/{what}")));
    let both = |what: &str, name: &str, expected: &str, found: &str| {
        format!("{what} of the trace `POST /orders/{name}` differ\n  expected: {expected}\n  found:    {found}")
    };
    fails(|| plain.hops(["orders"]).trace().id(), &both("the hops", "plain", "orders", "orders → shipments"));
    fails(|| hopeless.hops([]).trace().id(), &both("the hops", "hopeless", "none", "orders"));
    let attempts = "the attempts at `orders` in the trace `POST /orders/flaky` differ\n  expected: 1\n  found:    2";
    fails(|| flaky.attempts("orders", 1).trace().id(), attempts);
    let none = "the attempts at `other` in the trace `POST /orders/flaky` differ\n  expected: 1\n  found:    none";
    fails(|| flaky.attempts("other", 1).trace().id(), none);
    let outcomes = both("the outcomes at `orders`", "flaky", "ack", "retry → ack");
    fails(|| flaky.outcomes("orders", [Settlement::Acknowledged]).trace().id(), &outcomes);
    let errors = both("the errors at `orders`", "flaky", "timeout", "handler_error");
    fails(|| flaky.errors("orders", ["timeout"]).trace().id(), &errors);
    let letters = both("the dead letters", "plain", "orders.dead", "no dead letter");
    fails(|| plain.dead_lettered("orders.dead").trace().id(), &letters);
    let letters = both("the dead letters", "hopeless", "shipments.dead", "orders.dead");
    fails(|| hopeless.dead_lettered("shipments.dead").trace().id(), &letters);
    let letters = both("the dead letters", "hopeless", "none", "orders.dead");
    fails(|| hopeless.not_dead_lettered().trace().id(), &letters);
    fails(|| plain.services(["api"]).trace().id(), &both("the services", "plain", "api", "api → worker → desk"));
    let spans = both("the spans", "hopeless", "a → b", "POST /orders/hopeless → send orders");
    let text = failure(|| hopeless.spans(["a", "b"]).trace().id());
    assert!(text.starts_with(&spans), "{text}");
    let text = failure(|| plain.queued_at_most("orders", Duration::ZERO).trace().id());
    assert!(
        text.starts_with("the wait in `orders` of the trace `POST /orders/plain` differ\n  expected: at most 0ns"),
        "{text}"
    );
    let nothing = "the trace `POST /orders/plain` processed nothing from `other`";
    fails(|| plain.queued_at_most("other", Duration::ZERO).trace().id(), nothing);
    let span =
        "the spans called `process orders` in the trace `POST /orders/flaky` differ\n  expected: one\n  found:    2";
    fails(|| flaky.span("process orders").span_id, span);
    let linked =
        "the traces that link to the trace `POST /orders/plain` differ\n  expected: remind\n  found:    no trace";
    fails(|| plain.linked("remind").trace().id(), linked);
    let links =
        "the traces that the trace `POST /orders/plain` links to differ\n  expected: remind\n  found:    no trace";
    fails(|| plain.links_to("remind").trace().id(), links);
}

#[tokio::test]
async fn a_trace_that_is_not_there_is_told_from_those_that_are() {
    let capture = Capture::new();
    let missing = failure(|| capture.trace("GET /").trace().id());
    assert_eq!(missing, "no trace begins with a span called `GET /`; nothing was captured");
    assert!(failure(|| capture.assert_whole()).starts_with("nothing was captured"));
    for _ in 0..2 {
        capture.in_root_span("api", "POST /", async {}).await;
    }
    let missing = failure(|| capture.trace("GET /").trace().id());
    let two = "2 traces were captured, which begin with `POST /`, `POST /`";
    assert_eq!(missing, format!("no trace begins with a span called `GET /`; {two}"));
    let several = failure(|| capture.trace("POST /").trace().id());
    assert_eq!(several, format!("2 traces begin with a span called `POST /`; {two}"));
}

#[tokio::test]
async fn a_message_that_is_tied_to_no_sender_is_named() {
    let bed = TestBed::new();
    shop::start(&bed, TracePolicy::Ignore).await;
    shop::order(&bed, "plain").await;
    bed.settled().await.unwrap();
    // The break shows on the other side of the queue, in a separate trace.
    let text = failure(|| bed.trace("POST /orders").hops(["orders", "shipments"]).trace().id());
    assert!(text.contains("expected: orders → shipments\n  found:    none"), "{text}");
    assert!(text.contains("the trace `process orders` is also broken:\ntrace "), "{text}");
    assert!(text.contains("✗ no context in the message"), "{text}");
    let named = "the trace `process orders` is broken: no context in the message";
    fails(|| bed.trace("process orders").assert_whole().trace().id(), named);
    fails(|| bed.capture().assert_whole(), named);
}

#[tokio::test]
async fn a_parent_that_was_not_captured_is_named() {
    let bed = TestBed::new();
    shop::open(&bed).await;
    let (trace, span) = (TraceId::from(0x1234_u128), SpanId::from(0x5678_u64));
    let foreign = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
    let context = Context::new().with_remote_span_context(foreign);
    bed.broker("api").publish("orders", Message::new("plain").context(context)).await.unwrap();
    bed.settled().await.unwrap();
    let named = "the trace `send orders` is broken: parent not exported";
    fails(|| bed.trace("send orders").assert_whole().trace().id(), named);
}

#[tokio::test]
async fn a_span_that_does_not_end_is_named() {
    let capture = Capture::new();
    let _open = capture.provider("api").tracer("api").start("POST /orders");
    let named = "the trace `POST /orders` is broken: never finished";
    fails(|| capture.trace("POST /orders").assert_whole().trace().id(), named);
}

#[tokio::test]
async fn a_capture_that_is_full_fails_every_assertion() {
    let capture = Capture::new();
    let tracer = capture.provider("api").tracer("api");
    for _ in 0..MOST_SPANS + 2 {
        drop(tracer.start("row"));
    }
    let full = "the capture is full: 2 spans beyond 100000 were not kept";
    assert_eq!(failure(|| capture.assert_whole()), full);
    assert_eq!(failure(|| capture.trace("row").trace().id()), full);
}

/// The handler publishes outside of its span: the trace is torn without a span being broken.
#[tokio::test]
async fn a_torn_trace_lacks_hops() {
    let bed = TestBed::new().without_reader("shipments");
    let broker = bed.broker("worker");
    let outgoing = broker.clone();
    let ship = move |_: Received| {
        let outgoing = outgoing.clone();
        async move {
            let torn = Message::new("shipped").context(Context::new());
            outgoing.publish("shipments", torn).await?;
            Ok::<_, HandlerError>(())
        }
    };
    let consumer = broker.consume(Subscription::new("orders").group("workers"), ship).subscribed().await.unwrap();
    tokio::spawn(consumer.run());
    shop::order(&bed, "plain").await;
    bed.settled().await.unwrap();
    let text = failure(|| {
        bed.trace("POST /orders")
            .spans(["POST /orders", "send orders", "process orders", "send shipments"])
            .trace()
            .id()
    });
    assert!(text.contains("found:    POST /orders → send orders → process orders\n"), "{text}");
    bed.trace("send shipments").assert_whole();
}

/// A message forwarded by a successful handler is linked like a dead letter, and is not one.
#[tokio::test]
async fn what_is_forwarded_is_no_dead_letter() {
    let bed = TestBed::new().without_reader("elsewhere");
    let broker = bed.broker("worker");
    let outgoing = broker.clone();
    let pass_on = move |message: Received| {
        let outgoing = outgoing.clone();
        async move {
            outgoing.forward("elsewhere", Message::from(&message)).await?;
            Ok::<_, HandlerError>(())
        }
    };
    let consumer = broker.consume(Subscription::new("orders").group("workers"), pass_on).subscribed().await.unwrap();
    tokio::spawn(consumer.run());
    shop::order(&bed, "plain").await;
    bed.settled().await.unwrap();
    let trace = bed.trace("POST /orders");
    trace.assert_whole().not_dead_lettered();
    assert_eq!(trace.span("send elsewhere").links.len(), 1);
}

#[tokio::test]
async fn linked_traces_are_followed() {
    let bed = TestBed::new();
    let read = async |_: Received| Ok::<_, HandlerError>(());
    let orders = Subscription::new("orders").group("workers").trace_policy(TracePolicy::Link);
    let consumer = bed.broker("worker").consume(orders, read).subscribed().await.unwrap();
    tokio::spawn(consumer.run());
    shop::order(&bed, "plain").await;
    bed.settled().await.unwrap();
    bed.capture().assert_whole();
    let sent = bed.trace("POST /orders");
    sent.assert_whole().hops([]).linked("process orders");
    sent.follow("process orders").assert_whole().hops(["orders"]).attempts("orders", 1).links_to("POST /orders");
    let wrong =
        "the traces that link to the trace `POST /orders` differ\n  expected: other\n  found:    process orders";
    fails(|| sent.linked("other").trace().id(), wrong);
    let wrong =
        "the traces that the trace `process orders` links to differ\n  expected: other\n  found:    POST /orders";
    fails(|| bed.trace("process orders").links_to("other").trace().id(), wrong);
}

/// A batch is a separate trace that links every message.
#[tokio::test]
async fn a_batch_is_linked_from_each_message() {
    let bed = TestBed::new();
    let api = bed.broker("api");
    for _ in 0..3 {
        bed.in_root_span("api", "POST /rows", api.publish("rows", Message::new("row"))).await.unwrap();
    }
    let loader = bed.broker("loader");
    let load = async |_: Vec<Received>| Ok::<_, HandlerError>(Vec::new());
    let batches = loader.consume_batch(Subscription::new("rows").group("loaders"), load).size(3);
    tokio::select! {
        report = batches.run() => panic!("it ended: {report:?}"),
        settled = bed.settled() => settled.unwrap(),
    }
    bed.capture().assert_whole();
    for sent in bed.capture().traces_named("POST /rows") {
        sent.linked("process rows");
    }
    bed.trace("process rows").hops(["rows"]).attempts("rows", 1).links_to("POST /rows");
}

#[tokio::test]
async fn a_delivery_that_is_dropped_unsettled_comes_again_in_the_same_trace() {
    let bed = TestBed::new();
    let mut deliveries = bed.broker("worker").subscribe(Subscription::new("orders").group("workers")).await.unwrap();
    shop::order(&bed, "plain").await;
    let mut next = async || -> Delivery { futures_util::StreamExt::next(&mut deliveries).await.unwrap().unwrap() };
    drop(next().await); // no handler had begun
    next().await.process(async |_| Ok(())).await.unwrap();
    bed.settled().await.unwrap();
    let trace = bed.trace("POST /orders");
    trace.assert_whole().hops(["orders"]);
    assert_eq!(trace.span("process orders").attempt(), Some(1));
}
