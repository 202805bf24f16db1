//! Outcomes of handlers, and their spans: errors, panics, time limits, cancellation.

use crate::names::attribute;
use std::time::Duration;

use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, refused, text};
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::journal::Journal;
use crate::conformance::spans::{attribute_text, check_child, check_failed, check_succeeded};
use crate::error::{Error, ErrorKind};
use crate::message::{HandlerError, Message, Received};
use crate::runtime::TracedBrokerExt;
use crate::runtime::consume::Retry;

crate::conformance::case::cases! { Trace:
    b28_errors_and_panics_are_on_the_span [AtLeastOnce]
        "The span of a handler that fails or panics ends, and has the status, the kind and text of the error, and the settlement.";
    b28_an_error_is_on_the_span_at_most_once []
        "If a handler fails and nothing can be settled, its span has the error of the handler.";
    b29_the_span_of_a_cancelled_handler_ends [AtLeastOnce]
        "The span of a cancelled handler ends, marked so, and the message is redelivered.";
    b29_the_span_of_a_handler_that_takes_too_long_ends [AtLeastOnce]
        "The span of a handler that exceeds its time limit ends, marked so, and the message is redelivered.";
    b29_the_span_of_a_handler_that_is_cut_off_ends [AtLeastOnce]
        "If the end of the drain cuts off handlers, their spans end, marked so, and the messages are redelivered.";
}

async fn b28_errors_and_panics_are_on_the_span(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("x")).await?;
    let unavailable = || Error::new(ErrorKind::Unavailable, "the warehouse is closed");
    let handler = |message: Received| async move {
        match message.attempt() {
            1 => Err(HandlerError::retry("no stock")),
            2 => Err(HandlerError::from(unavailable())),
            3 => std::panic::resume_unwind(Box::new("a bug")),
            4 => Err(HandlerError::reject("nobody ships this")),
            _ => Ok(()),
        }
    };
    let ends = [
        ("handler_error", "no stock", "retry"),
        ("unavailable", "the warehouse is closed", "retry"),
        ("panic", "a bug", "retry"),
        ("handler_error", "nobody ships this", "reject"),
    ];
    for _ in ends {
        case.next(&mut deliveries).await?.process(handler).await?;
    }
    case.nothing_comes(&mut deliveries).await?;
    broker.close().await?;
    let (send, processes) = (case.spans.one(&case.send_name())?, case.spans.named(&case.process_name()));
    check_eq!(processes.len(), ends.len(), "the number of process spans");
    for (process, (error_type, words, settlement)) in processes.iter().zip(ends) {
        check_failed(process, error_type, words)?;
        check_eq!(attribute_text(process, attribute::SETTLEMENT), settlement, "the settlement");
        check_child(process, &send.span_context)?;
    }
    // A failure of the handler is not a failure of the sender.
    check_succeeded(&send)?;
    case.expect_whole_traces();
    Ok(())
}

async fn b28_an_error_is_on_the_span_at_most_once(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").at_most_once()).await?;
    broker.publish(&case.topic, Message::new("x")).await?;
    let fails = |_| async { Err::<(), _>(HandlerError::retry("no stock")) };
    let error = refused("a retry", case.next(&mut deliveries).await?.process(fails).await)?;
    check_eq!(error.kind(), ErrorKind::Unsupported, "the kind of {error}");
    broker.close().await?;
    let process = case.spans.one(&case.process_name())?;
    check_failed(&process, "handler_error", "no stock")?;
    check_eq!(attribute_text(&process, attribute::SETTLEMENT), "none", "the settlement");
    Ok(())
}

async fn b29_the_span_of_a_cancelled_handler_ends(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::new("x")).await?;
    // The time starts when the handler begins, which may be late on a busy machine.
    let begun = tokio::sync::Notify::new();
    let slow = case.next(&mut deliveries).await?.process(async |_| {
        begun.notify_one();
        std::future::pending::<Result<(), HandlerError>>().await
    });
    let cancel = async {
        begun.notified().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    tokio::select! {
        ended = slow => check!(ended.is_err(), "the handler is still at work"),
        () = cancel => {}
    }
    case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    broker.close().await?;
    let (send, spans) = (case.spans.one(&case.send_name())?, case.spans.named(&case.process_name()));
    check_eq!(spans.len(), 2, "the number of process spans");
    check_failed(&spans[0], "cancelled", "cancelled")?;
    check_eq!(attribute_text(&spans[0], attribute::SETTLEMENT), "none", "the settlement of the first");
    let lasted = spans[0].end_time.duration_since(spans[0].start_time).unwrap_or_default();
    check!(lasted >= Duration::from_millis(40), "the first lasts until it was cancelled: {lasted:?}");
    check_succeeded(&spans[1])?;
    for process in &spans {
        check_child(process, &send.span_context)?;
    }
    case.expect_whole_traces();
    Ok(())
}

async fn b29_the_span_of_a_handler_that_takes_too_long_ends(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let handler = async |message: Received| {
        if message.attempt() == 1 {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        journal.write(text(message.payload()));
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(case.group("g"), handler).time_limit(Duration::from_millis(60));
    let consumer = consume.retry(Retry::immediate(3)).subscribed().await?;
    broker.publish(&case.topic, Message::new("slow")).await?;
    consumer.run_until(journal.has(case, 1)).await?;
    broker.close().await?;
    let spans = case.spans.named(&case.process_name());
    check_eq!(spans.len(), 2, "the number of process spans");
    check_failed(&spans[0], "timeout", "did not finish within 60ms")?;
    check_eq!(attribute_text(&spans[0], attribute::SETTLEMENT), "retry", "the settlement of the first");
    check_succeeded(&spans[1])?;
    case.expect_whole_traces();
    Ok(())
}

async fn b29_the_span_of_a_handler_that_is_cut_off_ends(case: &CaseContext) -> Checked {
    const COUNT: usize = 3;
    let (broker, journal) = (case.broker().await?, Journal::default());
    let endless = async |_: Received| {
        journal.write("begun");
        std::future::pending::<()>().await;
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(case.group("g"), endless).concurrency(COUNT).drain_time(Duration::from_millis(60));
    let consumer = consume.subscribed().await?;
    for _ in 0..COUNT {
        broker.publish(&case.topic, Message::new("endless")).await?;
    }
    let report = consumer.run_until(journal.has(case, COUNT)).await?;
    check_eq!(report.abandoned, COUNT as u64, "how many handlers were cut off: {report}");
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    for _ in 0..COUNT {
        case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    }
    broker.close().await?;
    let spans = case.spans.named(&case.process_name());
    check_eq!(spans.len(), 2 * COUNT, "the number of process spans");
    for cut_off in &spans[..COUNT] {
        check_failed(cut_off, "cancelled", "cancelled")?;
    }
    spans[COUNT..].iter().try_for_each(check_succeeded)?;
    case.expect_whole_traces();
    Ok(())
}
