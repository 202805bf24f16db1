//! Redelivered messages: retried, dropped, cancelled, or with a lost connection.

use crate::names::attribute;
use std::collections::BTreeSet;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanContext, Status, TraceContextExt, TraceState};
use opentelemetry_sdk::trace::SpanData;

use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, text};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::journal::Journal;
use crate::conformance::spans::{attribute_text, check_child, check_failed, check_linked};
use crate::message::{HandlerError, Message, Received};
use crate::runtime::TracedBrokerExt;
use crate::runtime::consume::Retry;

crate::conformance::case::cases! { Trace:
    b07_each_retry_stays_in_the_trace [AtLeastOnce]
        "Each attempt has its own process span; all are children of the one send span and have the number of the attempt.";
    b07_retries_of_a_consumer_stay_in_the_trace [AtLeastOnce]
        "The same holds if the runtime retries, with and without order by key.";
    b08_a_publish_writes_each_header_once []
        "A message that holds stale contexts, in any case and number, is published with one of each header and no stale one.";
    b08_each_header_stays_one_over_retries_and_dead_letters [AtLeastOnce]
        "Retried, forwarded, dead-lettered and sent back: the message carries one of each header all the way, unchanged.";
    b31_each_attempt_is_one_span_of_the_same_parent [AtLeastOnce]
        "Failed, cancelled, cut off by the end of its connection, handled: each attempt is one span, child of the one send span.";
}

async fn b07_each_retry_stays_in_the_trace(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("x")).await?;
    for attempt in 1..=3 {
        let handler = |_: Received| async move {
            if attempt < 3 {
                return Err(HandlerError::retry_after("not yet", Duration::from_millis(50)));
            }
            Ok(())
        };
        case.next(&mut deliveries).await?.process(handler).await?;
    }
    broker.close().await?;
    case.spans.check_everything_resolves()?;
    case.expect_whole_traces();
    check_attempts(&case.spans.one(&case.send_name())?, &case.spans.named(&case.process_name()))
}

/// Checks the spans of three attempts at one message, of which two failed.
fn check_attempts(send: &SpanData, attempts: &[SpanData]) -> Checked {
    check_eq!(attempts.len(), 3, "the number of process spans");
    for (index, span) in attempts.iter().enumerate() {
        check_child(span, &send.span_context)?;
        check_linked(span, &send.span_context)?;
        check_eq!(attribute_text(span, attribute::DELIVERY_ATTEMPT), (index + 1).to_string(), "the attempt");
        if index < 2 {
            check_failed(span, "handler_error", "not yet")?;
        }
        let failed = matches!(span.status, Status::Error { .. });
        check_eq!(failed, index < 2, "whether attempt {} failed", index + 1);
        check_eq!(attribute_text(span, attribute::SETTLEMENT), if failed { "retry" } else { "ack" }, "the settlement");
    }
    Ok(())
}

async fn b07_retries_of_a_consumer_stay_in_the_trace(case: &CaseContext) -> Checked {
    for ordered in [false, true] {
        let topic = case.topic(if ordered { "ordered" } else { "unordered" });
        let (broker, journal) = (case.broker().await?, Journal::default());
        let handler = async |message: Received| {
            if message.attempt() < 3 {
                return Err(HandlerError::retry("not yet"));
            }
            journal.write("done");
            Ok(())
        };
        let consume = broker.consume(case.group_on(&topic, "g"), handler).concurrency(4);
        let consume = consume.retry(Retry::fixed(5, Duration::from_millis(20)));
        let consume = if ordered { consume.ordered_by_key() } else { consume };
        let consumer = consume.subscribed().await?;
        broker.publish(&topic, Message::new("x").key("k")).await?;
        consumer.run_until(journal.has(case, 1)).await?;
        broker.close().await?;
        let (send, attempts) = (format!("send {topic}"), format!("process {topic}"));
        check_attempts(&case.spans.one(&send)?, &case.spans.named(&attempts))?;
    }
    case.expect_whole_traces();
    Ok(())
}

/// Creates a message with a full context, and with stale headers that must not travel with it.
fn laden(payload: &'static str) -> Checked<Message> {
    let state = TraceState::from_key_value([("vendor", "a")]);
    let state = state.map_err(|error| Failure::new(format!("a trace state: {error}")))?;
    let parent = crate::conformance::foreign::context();
    let (trace, span) = (parent.trace_id(), parent.span_id());
    let parent = SpanContext::new(trace, span, parent.trace_flags(), true, state);
    let context = opentelemetry::Context::new().with_remote_span_context(parent);
    let stale = "00-11111111111111111111111111111111-2222222222222222-01";
    Ok(Message::new(payload)
        .key("one")
        .header("traceparent", stale)
        .header("Traceparent", stale)
        .header("TRACEPARENT", "garbage")
        .header("tracestate", "stale=1")
        .header("TraceState", "stale=2")
        .header("baggage", "stale=1")
        .header("Baggage", "stale=2")
        .context(context.with_baggage([KeyValue::new("tenant", "acme")])))
}

/// Returns the context headers of a message, each of which must be present once.
fn carried(message: &Received) -> Checked<[String; 3]> {
    let one = |name: &'static str| {
        let values: Vec<String> = message.headers().get_all(name).map(text).collect();
        check_eq!(values.len(), 1, "how many headers named {name} attempt {} carries", message.attempt());
        Checked::Ok(values.concat())
    };
    Ok([one("traceparent")?, one("tracestate")?, one("baggage")?])
}

async fn b08_a_publish_writes_each_header_once(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, laden("alone")?).await?;
    for result in broker.publish_batch(&case.topic, vec![laden("in a batch")?]).await {
        result?;
    }
    for span in ["send", "create"] {
        let delivery = case.next(&mut deliveries).await?;
        let [parent, state, baggage] = carried(delivery.message())?;
        delivery.process(|_| async { Ok(()) }).await?;
        let spans = case.spans.named(&format!("{span} {}", case.topic));
        let made = spans.first().map(|span| span.span_context.clone());
        let due = made.map(|made| format!("00-{}-{}-01", made.trace_id(), made.span_id()));
        check_eq!(Some(parent), due, "the context of the message that was published by a {span} span");
        check_eq!((&*state, &*baggage), ("vendor=a", "tenant=acme"), "the trace state and the baggage");
    }
    Ok(())
}

async fn b08_each_header_stays_one_over_retries_and_dead_letters(case: &CaseContext) -> Checked {
    let dead = case.topic("dead");
    let broker = case.broker().await?;
    let redrive = case.group_name("redrive");
    drop(broker.subscribe(case.group_on(&dead, "redrive")).await?);
    let mut deliveries = broker.subscribe(case.group("g").dead_letter(&dead)).await?;
    let mut graves = broker.subscribe(case.group_on(&dead, "desk")).await?;
    broker.publish(&case.topic, laden("x")?).await?;
    let first = case.next(&mut deliveries).await?;
    let sent = carried(first.message())?;
    first.retry(Duration::ZERO).await?;
    let again = case.next(&mut deliveries).await?;
    check_eq!(carried(again.message())?, sent, "what the second attempt carries");
    again.process(|_| async { Err::<(), _>(HandlerError::retry_after("later", Duration::from_millis(50))) }).await?;
    let third = case.next(&mut deliveries).await?;
    check_eq!(carried(third.message())?, sent, "what the third attempt carries");
    third.reject("never").await?;
    let grave = case.next(&mut graves).await?;
    check_eq!(carried(grave.message())?, sent, "what the dead letter carries");
    grave.retry(Duration::ZERO).await?;
    let grave = case.next(&mut graves).await?;
    check_eq!(carried(grave.message())?, sent, "what the dead letter carries when it is redelivered");
    grave.ack().await?;
    let idle = Duration::from_secs(5).max(case.harness.quiet());
    let redriven = broker.redrive(&dead).group(&redrive).idle(idle).at_most(1).run().await?;
    check_eq!(redriven.sent_back, 1, "how many dead letters were sent back");
    let back = case.next(&mut deliveries).await?;
    check_eq!(carried(back.message())?, sent, "what the message carries that was sent back");
    back.ack().await?;
    Ok(())
}

async fn b31_each_attempt_is_one_span_of_the_same_parent(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("x")).await?;
    let fails = |_| async { Err::<(), _>(HandlerError::retry("not yet")) };
    case.next(&mut deliveries).await?.process(fails).await?;
    // Dropped without being processed: no attempt, no span.
    drop(case.next(&mut deliveries).await?);
    let endless = |_| std::future::pending::<Result<(), HandlerError>>();
    let cancelled = case.next(&mut deliveries).await?.process(endless);
    check!(tokio::time::timeout(Duration::from_millis(50), cancelled).await.is_err(), "the handler is still at work");
    let (closing, last) = (broker.clone(), case.next(&mut deliveries).await?);
    let cut_off = last.process(|_| async move { Ok(closing.close().await?) }).await;
    check!(cut_off.is_err(), "what is settled after closing is not settled");
    drop(deliveries);

    let again = case.broker().await?;
    let mut deliveries = again.subscribe(case.group("g")).await?;
    case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    again.close().await?;
    let send = case.spans.one(&case.send_name())?;
    let attempts = case.spans.named(&case.process_name());
    let ids: BTreeSet<[u8; 8]> = attempts.iter().map(|span| span.span_context.span_id().to_bytes()).collect();
    check_eq!((attempts.len(), ids.len()), (4, 4), "the number of process spans, and of their ids");
    for attempt in &attempts {
        check_child(attempt, &send.span_context)?;
    }
    let errors: Vec<String> = attempts.iter().map(|span| attribute_text(span, "error.type")).collect();
    let first: Vec<&str> = errors.iter().take(2).map(String::as_str).collect();
    check_eq!(first, ["handler_error", "cancelled"], "how the first two attempts ended");
    check!(matches!(&*errors[2], "settlement_lost" | "closed"), "the third attempt is not settled: {}", errors[2]);
    check_eq!(errors[3], "", "how the last attempt ended");
    case.expect_whole_traces();
    Ok(())
}
