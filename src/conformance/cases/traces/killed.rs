//! The broker is killed while a handler runs: the handler keeps its context, and a redelivery is in
//! the same trace.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

use crate::broker::{Broker, Deliveries, TracedBroker};
use crate::conformance::case_context::CaseContext;
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::spans::{attribute_text, check_child};
use crate::message::{HandlerError, Message, Received};

crate::conformance::case::cases! { Restart:
    b31_after_a_kill_each_attempt_is_one_span_of_the_same_parent [Durable, AtLeastOnce]
        "A message whose handler failed when the broker was killed is redelivered in the same trace, with a span for each attempt.";
    b37_a_handler_keeps_its_context_over_a_reconnection [Durable, AtLeastOnce]
        "A handler that is at work when the broker is killed publishes afterwards, on the new connection, in its own trace.";
}

/// Maximum time until a broker that was killed can be reached again.
const STUCK: Duration = Duration::from_secs(60);

async fn b31_after_a_kill_each_attempt_is_one_span_of_the_same_parent(case: &CaseContext) -> Checked {
    let killable = crate::conformance::cases::restart::killable(case).await?;
    let broker = case.traced(killable.connect().await?);
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("x")).await?;
    let delivery = case.next(&mut deliveries).await?;
    tokio::time::sleep(killable.settling_time()).await;
    let killing = std::sync::Arc::clone(&killable);
    // A success would be remembered, and settled without a second attempt.
    let fails = |_| async move {
        killing.kill_and_restart().await?;
        Err::<(), _>(HandlerError::retry("the broker was killed"))
    };
    // The retry may be lost with its connection, or succeed on a new one.
    let _ = delivery.process(fails).await;
    let attempts = 1 + handle_until_settled(&mut deliveries).await?;
    broker.close().await?;
    let send = case.spans.one(&case.send_name())?;
    let spans = case.spans.named(&case.process_name());
    let ids: BTreeSet<[u8; 8]> = spans.iter().map(|span| span.span_context.span_id().to_bytes()).collect();
    check_eq!((spans.len(), ids.len()), (attempts, attempts), "the number of process spans, and of their ids");
    for span in &spans {
        check_child(span, &send.span_context)?;
    }
    let ended_well = attribute_text(&spans[attempts - 1], "error.type").is_empty();
    check!(ended_well, "the last attempt is settled");
    case.spans.check_everything_resolves()
}

/// Handles deliveries until one is settled, and returns how many were handled.
async fn handle_until_settled(deliveries: &mut Deliveries) -> Checked<usize> {
    let mut handled = 0;
    let again = async {
        while let Some(item) = deliveries.next().await {
            let Ok(delivery) = item else { continue };
            handled += 1;
            if delivery.process(|_| async { Ok(()) }).await.is_ok() {
                return true;
            }
        }
        false
    };
    let settled = tokio::time::timeout(STUCK, again).await;
    check!(matches!(settled, Ok(true)), "an unsettled message is redelivered within {STUCK:?} and is settled");
    Ok(handled)
}

async fn b37_a_handler_keeps_its_context_over_a_reconnection(case: &CaseContext) -> Checked {
    let killable = crate::conformance::cases::restart::killable(case).await?;
    let broker = case.traced(killable.connect().await?);
    let onward = case.topic("onward");
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let mut last = broker.subscribe(case.group_on(&onward, "g")).await?;
    let root = case.root("POST /orders");
    broker.publish(&case.topic, Message::new("x").context(root.clone())).await?;
    let delivery = case.next(&mut deliveries).await?;
    tokio::time::sleep(killable.settling_time()).await;
    let (killing, publisher, to) = (std::sync::Arc::clone(&killable), broker.clone(), onward.clone());
    let handler = |_: Received| async move {
        let before = Context::current().span().span_context().clone();
        killing.kill_and_restart().await?;
        publish_once_it_can(&publisher, &to).await?;
        let after = Context::current().span().span_context().clone();
        check_eq!(after, before, "the context of the handler after the reconnection");
        Ok(())
    };
    let processed = delivery.process(handler).await;
    let error = processed.ok().and_then(|processed| processed.error);
    check!(error.is_none(), "the handler succeeds: {error:?}");
    check!(handle_until_settled(&mut last).await? > 0, "what the handler published arrives");
    root.span().end();
    let process = case.spans.named(&case.process_name());
    let process = process.first().ok_or_else(|| Failure::new("the handler has a process span"))?;
    let sends = case.spans.named(&format!("send {onward}"));
    check!(!sends.is_empty(), "what the handler published has a span");
    for send in &sends {
        check_child(send, &process.span_context)?;
    }
    for next in case.spans.named(&format!("process {onward}")) {
        let sent = sends.iter().any(|send| send.span_context.span_id() == next.parent_span_id);
        check!(sent, "what arrives is a child of a send span");
    }
    broker.close().await?;
    Ok(())
}

async fn publish_once_it_can(broker: &Broker, topic: &str) -> Result<(), HandlerError> {
    let until = tokio::time::Instant::now() + STUCK;
    loop {
        match broker.publish(topic, Message::new("after")).await {
            Err(error) if error.is_retryable() && tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            result => return Ok(result.map(drop)?),
        }
    }
}
