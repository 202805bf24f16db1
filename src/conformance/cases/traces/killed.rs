//! The broker is killed under a handler: its context stays, and what comes again is in the same trace.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

use super::super::super::failure::{Checked, Failure, check, check_eq};
use super::super::super::spans::{attribute_text, check_child};
use super::super::super::world::World;
use crate::broker::{Broker, TracedBroker};
use crate::consumer::Deliveries;
use crate::message::Message;
use crate::received::Received;

super::super::super::case::cases! { Restart:
    b31_after_a_kill_each_attempt_is_one_span_of_the_same_parent [Durable, AtLeastOnce]
        "A message whose handler was at work when the broker was killed comes again in the same trace, a span for each attempt.";
    b37_a_handler_keeps_its_context_over_a_reconnection [Durable, AtLeastOnce]
        "A handler that is at work when the broker is killed publishes afterwards, on the new connection, in its own trace.";
}

/// How long a broker that was killed may take to be reached again.
const STUCK: Duration = Duration::from_secs(60);

async fn b31_after_a_kill_each_attempt_is_one_span_of_the_same_parent(world: &World) -> Checked {
    let mortal = super::super::restart::mortal(world).await?;
    let broker = world.traced(mortal.connect().await?);
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("x")).await?;
    let delivery = world.next(&mut deliveries).await?;
    tokio::time::sleep(mortal.settling_time()).await;
    let killing = std::sync::Arc::clone(&mortal);
    let processed = delivery.process(|_| async move { Ok(killing.kill_and_restart().await?) }).await;
    // A settlement may be lost with its connection, or find its way by a new one.
    let settled = processed.is_ok();
    let attempts = if settled { 1 } else { 1 + handle_until_settled(&mut deliveries).await? };
    broker.close().await?;
    let send = world.spans.one(&world.send_name())?;
    let spans = world.spans.named(&world.process_name());
    let ids: BTreeSet<[u8; 8]> = spans.iter().map(|span| span.span_context.span_id().to_bytes()).collect();
    check_eq!((spans.len(), ids.len()), (attempts, attempts), "the number of process spans, and of their ids");
    for span in &spans {
        check_child(span, &send.span_context)?;
    }
    let ended_well = attribute_text(&spans[attempts - 1], "error.type").is_empty();
    check!(ended_well, "the last attempt is settled");
    world.spans.check_everything_resolves()
}

/// Handles what comes until one is settled, and says how often that took.
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
    check!(matches!(settled, Ok(true)), "what was unsettled comes again within {STUCK:?} and is settled");
    Ok(handled)
}

async fn b37_a_handler_keeps_its_context_over_a_reconnection(world: &World) -> Checked {
    let mortal = super::super::restart::mortal(world).await?;
    let broker = world.traced(mortal.connect().await?);
    let onward = world.topic("onward");
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    let mut last = broker.subscribe(world.group_on(&onward, "g")).await?;
    let root = world.root("POST /orders");
    broker.publish(&world.topic, Message::new("x").context(root.clone())).await?;
    let delivery = world.next(&mut deliveries).await?;
    tokio::time::sleep(mortal.settling_time()).await;
    let (killing, publisher, to) = (std::sync::Arc::clone(&mortal), broker.clone(), onward.clone());
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
    let process = world.spans.named(&world.process_name());
    let process = process.first().ok_or_else(|| Failure::new("the handler has a process span"))?;
    let sends = world.spans.named(&format!("send {onward}"));
    check!(!sends.is_empty(), "what the handler published has a span");
    for send in &sends {
        check_child(send, &process.span_context)?;
    }
    for next in world.spans.named(&format!("process {onward}")) {
        let sent = sends.iter().any(|send| send.span_context.span_id() == next.parent_span_id);
        check!(sent, "what arrives is a child of a send span");
    }
    broker.close().await?;
    Ok(())
}

async fn publish_once_it_can(broker: &Broker, topic: &str) -> Result<(), crate::HandlerError> {
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
