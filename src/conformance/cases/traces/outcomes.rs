//! How handlers end, and that their spans say so: errors, panics, time limits, cancellation.

use std::time::Duration;

use super::super::super::failure::{Checked, check, check_eq};
use super::super::super::journal::Journal;
use super::super::super::spans::{attribute_text, check_child, check_failed, check_succeeded};
use super::super::super::world::{World, refused, text};
use crate::broker::TracedBroker;
use crate::broker_ext::TracedBrokerExt;
use crate::consume::Retry;
use crate::error::{Error, ErrorKind};
use crate::handler::HandlerError;
use crate::message::Message;
use crate::received::Received;
use crate::span;

super::super::super::case::cases! { Trace:
    b28_errors_and_panics_are_on_the_span [AtLeastOnce]
        "The span of a handler that fails or panics has the status, the kind of error and the words, ends, and says how the message was settled.";
    b28_an_error_is_on_the_span_at_most_once []
        "A handler that fails where nothing can be settled is on its span with its own error.";
    b29_the_span_of_a_cancelled_handler_ends [AtLeastOnce]
        "The span of a handler that is cancelled ends, marked so, and the message comes again.";
    b29_the_span_of_a_handler_that_takes_too_long_ends [AtLeastOnce]
        "The span of a handler that exceeds its time limit ends, marked so, and the message comes again.";
    b29_the_span_of_a_handler_that_is_cut_off_ends [AtLeastOnce]
        "The spans of handlers that the end of the drain cuts off end, marked so, and the messages come again.";
}

async fn b28_errors_and_panics_are_on_the_span(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("x")).await?;
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
        world.next(&mut deliveries).await?.process(handler).await?;
    }
    world.nothing_comes(&mut deliveries).await?;
    broker.close().await?;
    let (send, processes) = (world.spans.one(&world.send_name())?, world.spans.named(&world.process_name()));
    check_eq!(processes.len(), ends.len(), "the number of process spans");
    for (process, (error_type, words, settlement)) in processes.iter().zip(ends) {
        check_failed(process, error_type, words)?;
        check_eq!(attribute_text(process, span::SETTLEMENT), settlement, "the settlement");
        check_child(process, &send.span_context)?;
    }
    // A failure of the handler's is none of the sender's.
    check_succeeded(&send)?;
    world.expect_whole_traces();
    Ok(())
}

async fn b28_an_error_is_on_the_span_at_most_once(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").at_most_once()).await?;
    broker.publish(&world.topic, Message::new("x")).await?;
    let fails = |_| async { Err::<(), _>(HandlerError::retry("no stock")) };
    let error = refused("a retry", world.next(&mut deliveries).await?.process(fails).await)?;
    check_eq!(error.kind(), ErrorKind::Unsupported, "the kind of {error}");
    broker.close().await?;
    let process = world.spans.one(&world.process_name())?;
    check_failed(&process, "handler_error", "no stock")?;
    check_eq!(attribute_text(&process, span::SETTLEMENT), "none", "the settlement");
    Ok(())
}

async fn b29_the_span_of_a_cancelled_handler_ends(world: &World) -> Checked {
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    broker.publish(&world.topic, Message::new("x")).await?;
    // The time runs from when the handler begins, which on a busy machine is not at once.
    let begun = tokio::sync::Notify::new();
    let slow = world.next(&mut deliveries).await?.process(async |_| {
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
    world.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    broker.close().await?;
    let (send, spans) = (world.spans.one(&world.send_name())?, world.spans.named(&world.process_name()));
    check_eq!(spans.len(), 2, "the number of process spans");
    check_failed(&spans[0], "cancelled", "cancelled")?;
    check_eq!(attribute_text(&spans[0], span::SETTLEMENT), "none", "the settlement of the first");
    let lasted = spans[0].end_time.duration_since(spans[0].start_time).unwrap_or_default();
    check!(lasted >= Duration::from_millis(40), "the first lasts until it was cancelled: {lasted:?}");
    check_succeeded(&spans[1])?;
    for process in &spans {
        check_child(process, &send.span_context)?;
    }
    world.expect_whole_traces();
    Ok(())
}

async fn b29_the_span_of_a_handler_that_takes_too_long_ends(world: &World) -> Checked {
    let (broker, journal) = (world.broker().await?, Journal::default());
    let handler = async |message: Received| {
        if message.attempt() == 1 {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        journal.write(text(message.payload()));
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(world.group("g"), handler).time_limit(Duration::from_millis(60));
    let consumer = consume.retry(Retry::immediate(3)).subscribed().await?;
    broker.publish(&world.topic, Message::new("slow")).await?;
    consumer.run_until(journal.has(world, 1)).await;
    broker.close().await?;
    let spans = world.spans.named(&world.process_name());
    check_eq!(spans.len(), 2, "the number of process spans");
    check_failed(&spans[0], "timeout", "did not finish within 60ms")?;
    check_eq!(attribute_text(&spans[0], span::SETTLEMENT), "retry", "the settlement of the first");
    check_succeeded(&spans[1])?;
    world.expect_whole_traces();
    Ok(())
}

async fn b29_the_span_of_a_handler_that_is_cut_off_ends(world: &World) -> Checked {
    const COUNT: usize = 3;
    let (broker, journal) = (world.broker().await?, Journal::default());
    let endless = async |_: Received| {
        journal.write("begun");
        std::future::pending::<()>().await;
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(world.group("g"), endless).concurrency(COUNT).drain_time(Duration::from_millis(60));
    let consumer = consume.subscribed().await?;
    for _ in 0..COUNT {
        broker.publish(&world.topic, Message::new("endless")).await?;
    }
    let report = consumer.run_until(journal.has(world, COUNT)).await;
    check_eq!(report.abandoned, COUNT as u64, "how many handlers were cut off: {report}");
    let mut deliveries = broker.subscribe(world.group("g")).await?;
    for _ in 0..COUNT {
        world.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    }
    broker.close().await?;
    let spans = world.spans.named(&world.process_name());
    check_eq!(spans.len(), 2 * COUNT, "the number of process spans");
    for cut_off in &spans[..COUNT] {
        check_failed(cut_off, "cancelled", "cancelled")?;
    }
    spans[COUNT..].iter().try_for_each(check_succeeded)?;
    world.expect_whole_traces();
    Ok(())
}
