//! A consumer drains, a connection closes: messages in flight keep their contexts, and every span
//! ends.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

use crate::broker::TracedBroker;
use crate::conformance::case_context::CaseContext;
use crate::conformance::counted::counted;
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::journal::Journal;
use crate::message::{HandlerError, Message, Received};
use crate::runtime::TracedBrokerExt;
use crate::runtime::consume::Retry;

crate::conformance::case::cases! { Trace:
    b37_every_span_ends_when_a_consumer_drains [AtLeastOnce]
        "After a stop in the middle of handlers, retries and dead letters, every span that was started has ended.";
    b37_a_handler_keeps_its_context_when_its_connection_closes []
        "A handler whose connection is closed under it keeps the context of its message to the end, and its span ends.";
}

async fn b37_every_span_ends_when_a_consumer_drains(case: &CaseContext) -> Checked {
    const COUNT: usize = 60;
    let (provider, counts) = counted();
    let broker = case.untraced().await?.with_tracer_provider(&provider);
    let journal = Journal::default();
    let handler = async |message: Received| {
        journal.write("begun");
        tokio::time::sleep(Duration::from_millis(5)).await;
        match message.payload().len() % 4 {
            0 => Ok(()),
            1 => Err(HandlerError::retry("not yet")),
            2 => Err(HandlerError::reject("never")),
            _ => std::future::pending().await,
        }
    };
    let consume = broker.consume(case.group("g"), handler).concurrency(8).dead_letter(case.topic("dead"));
    let retry = Retry::fixed(100, Duration::from_millis(20));
    let consumer = consume.retry(retry).drain_time(Duration::from_millis(100)).subscribed().await?;
    let messages = (0..COUNT).map(|number| Message::new("x".repeat(number)));
    for result in broker.publish_batch(&case.topic, messages.collect()).await {
        result?;
    }
    let report = consumer.run_until(journal.has(case, COUNT / 2)).await?;
    check!(report.abandoned > 0, "some handlers were cut off: {report}");
    broker.close().await?;
    check!(counts.started() > COUNT, "spans were started: {counts:?}");
    check_eq!(counts.ended(), counts.started(), "how many spans ended, of those that were started");
    Ok(())
}

async fn b37_a_handler_keeps_its_context_when_its_connection_closes(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let root = case.root("POST /orders");
    broker.publish(&case.topic, Message::new("x").context(root.clone())).await?;
    let trace = root.span().span_context().trace_id();
    let closing = broker.clone();
    let handler = |_| async move {
        let before = Context::current().span().span_context().clone();
        check_eq!(before.trace_id(), trace, "the trace of the handler");
        closing.close().await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let after = Context::current().span().span_context().clone();
        check_eq!(after, before, "the context of the handler once its connection is closed");
        Ok(())
    };
    let processed = case.next(&mut deliveries).await?.process(handler).await;
    // Settling may fail by now, but the handler must have succeeded.
    let error = processed.ok().and_then(|processed| processed.error);
    check!(error.is_none(), "the handler succeeds: {error:?}");
    root.span().end();
    let process = case.spans.one(&case.process_name())?;
    check_eq!(process.span_context.trace_id(), trace, "the trace of the process span");
    let lasted = process.end_time.duration_since(process.start_time).unwrap_or_default();
    check!(lasted >= Duration::from_millis(10), "the process span lasts as long as the handler: {lasted:?}");
    Ok(())
}
