//! What is given up keeps its trace.

use opentelemetry::trace::{SpanKind, TraceContextExt};

use super::super::super::failure::{Checked, check_eq};
use super::super::super::spans::{check_child, check_failed, check_kind, check_linked};
use super::super::super::world::World;
use crate::broker::TracedBroker;
use crate::handler::HandlerError;
use crate::message::Message;

super::super::super::case::cases! { Trace:
    b09_a_dead_letter_keeps_its_trace [AtLeastOnce]
        "A dead letter carries the creation context; the span that sends it is a child of the attempt that gave it up, and whoever reads it is linked.";
}

async fn b09_a_dead_letter_keeps_its_trace(world: &World) -> Checked {
    let dead = world.topic("dead");
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").dead_letter(&dead)).await?;
    let mut graves = broker.subscribe(world.group_on(&dead, "desk")).await?;
    let root = world.root("POST /orders");
    broker.publish(&world.topic, Message::new("poison").context(root.clone())).await?;
    let delivery = world.next(&mut deliveries).await?;
    let sent = delivery.message().headers().get_str("traceparent").map(str::to_owned);
    delivery.process(|_| async { Err::<(), _>(HandlerError::reject("nobody ships this")) }).await?;
    let grave = world.next(&mut graves).await?;
    let carried = grave.message().headers().get_str("traceparent").map(str::to_owned);
    check_eq!(carried, sent, "the creation context of the dead letter");
    grave.process(|_| async { Ok(()) }).await?;
    root.span().end();
    broker.close().await?;

    world.spans.check_everything_resolves()?;
    let (send, process) = (world.spans.one(&world.send_name())?, world.spans.one(&world.process_name())?);
    let (burial, desk) = (world.spans.one(&format!("send {dead}"))?, world.spans.one(&format!("process {dead}"))?);
    check_eq!(
        sent,
        Some(format!("00-{}-{}-01", send.span_context.trace_id(), send.span_context.span_id())),
        "the creation context"
    );
    check_failed(&process, "handler_error", "nobody ships this")?;
    check_kind(&burial, SpanKind::Client)?;
    check_child(&burial, &process.span_context)?;
    check_linked(&burial, &send.span_context)?;
    check_linked(&desk, &send.span_context)?;
    world.expect_whole_traces();
    Ok(())
}
