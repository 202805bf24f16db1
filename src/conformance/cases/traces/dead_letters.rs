//! Dead letters keep their traces.

use opentelemetry::trace::{SpanKind, TraceContextExt};

use crate::broker::TracedBroker;
use crate::conformance::case_context::CaseContext;
use crate::conformance::failure::{Checked, check_eq};
use crate::conformance::spans::{check_child, check_failed, check_kind, check_linked};
use crate::message::{HandlerError, Message};

crate::conformance::case::cases! { Trace:
    b09_a_dead_letter_keeps_its_trace [AtLeastOnce]
        "A dead letter carries the creation context. The span that sends it is a child of the attempt that gave it up; the span that reads it is linked.";
}

async fn b09_a_dead_letter_keeps_its_trace(case: &CaseContext) -> Checked {
    let dead = case.topic("dead");
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").dead_letter(&dead)).await?;
    let mut graves = broker.subscribe(case.group_on(&dead, "desk")).await?;
    let root = case.root("POST /orders");
    broker.publish(&case.topic, Message::new("poison").context(root.clone())).await?;
    let delivery = case.next(&mut deliveries).await?;
    let sent = delivery.message().headers().get_str("traceparent").map(str::to_owned);
    delivery.process(|_| async { Err::<(), _>(HandlerError::reject("nobody ships this")) }).await?;
    let grave = case.next(&mut graves).await?;
    let carried = grave.message().headers().get_str("traceparent").map(str::to_owned);
    check_eq!(carried, sent, "the creation context of the dead letter");
    grave.process(|_| async { Ok(()) }).await?;
    root.span().end();
    broker.close().await?;

    case.spans.check_everything_resolves()?;
    let (send, process) = (case.spans.one(&case.send_name())?, case.spans.one(&case.process_name())?);
    let (burial, desk) = (case.spans.one(&format!("send {dead}"))?, case.spans.one(&format!("process {dead}"))?);
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
    case.expect_whole_traces();
    Ok(())
}
