//! Messages by the batch: a context for each on the way out, a link for each on the way in, however many.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry::trace::{SpanId, SpanKind, TraceContextExt};
use opentelemetry_sdk::trace::SpanData;

use super::super::super::failure::{Checked, check, check_eq};
use super::super::super::journal::Journal;
use super::super::super::spans::{attribute_text, check_begins_a_trace, check_failed, check_kind, is_root};
use super::super::super::world::{World, numbers, text};
use crate::broker::TracedBroker;
use crate::broker_ext::TracedBrokerExt;
use crate::consume::{Failed, Retry};
use crate::handler::HandlerError;
use crate::message::Message;
use crate::received::Received;

super::super::super::case::cases! { Trace:
    b04_each_message_of_a_batch_has_its_own_context []
        "Each message of a batch has a creation context of its own; the send spans link all of them.";
    b05_a_batch_is_one_span_that_links_every_message []
        "The process span of a batch is a trace of its own that links the creation context of every message, once.";
    b06_a_batch_of_more_than_128_drops_no_link []
        "A batch of more messages than a span keeps links for links every one of them all the same.";
    b28_a_batch_that_fails_says_so_on_its_span [AtLeastOnce]
        "The process span of a batch in which messages fail has the error, and how many.";
}

async fn b04_each_message_of_a_batch_has_its_own_context(world: &World) -> Checked {
    const COUNT: usize = 150;
    let broker = world.broker().await?;
    let mut deliveries = broker.subscribe(world.group("g").prefetch(COUNT)).await?;
    let root = world.root("import");
    let guard = root.clone().attach();
    let messages = numbers(COUNT).into_iter().map(|number| Message::new(number).key("one")).collect();
    let publish = broker.publish_batch(&world.topic, messages);
    drop(guard);
    for result in publish.await {
        result?;
    }
    let mut order = Vec::new();
    for _ in 0..COUNT {
        let delivery = world.next(&mut deliveries).await?;
        order.push(text(delivery.message().payload()));
        delivery.process(|_| async { Ok(()) }).await?;
    }
    root.span().end();
    broker.close().await?;
    check_eq!(order, numbers(COUNT), "the order");
    let trace = root.span().span_context().trace_id();
    check!(world.spans.all().iter().all(|span| span.span_context.trace_id() == trace), "all spans are in one trace");
    world.expect_whole_traces();
    check_batch(world, COUNT)
}

fn check_batch(world: &World, count: usize) -> Checked {
    world.spans.check_everything_resolves()?;
    let creates = world.spans.named(&format!("create {}", world.topic));
    let sends = world.spans.named(&world.send_name());
    let processes = world.spans.named(&world.process_name());
    let seen = (creates.len(), sends.len(), processes.len());
    check_eq!(seen, (count, count.div_ceil(128), count), "the number of create, send and process spans");
    let created = sorted(creates.iter().map(|create| create.span_context.span_id()));
    check!(linked(&sends) == created, "the send spans link every message");
    let parents = sorted(processes.iter().map(|process| process.parent_span_id));
    check!(parents == created, "each message has its own context");
    for send in &sends {
        check_kind(send, SpanKind::Client)?;
        check_eq!(send.links.dropped_count, 0, "the number of links that are dropped");
        let count = attribute_text(send, "messaging.batch.message_count");
        check_eq!(count, send.links.len().to_string(), "the number of messages");
    }
    creates.iter().try_for_each(|create| check_kind(create, SpanKind::Producer))
}

async fn b05_a_batch_is_one_span_that_links_every_message(world: &World) -> Checked {
    const COUNT: usize = 100;
    consume_batch_of(world, COUNT).await?;
    let batches = world.spans.named(&world.process_name());
    let creates = world.spans.named(&format!("create {}", world.topic));
    check!(linked(&batches) == ids(&creates), "each creation context is linked, once");
    for batch in &batches {
        check_kind(batch, SpanKind::Consumer)?;
        check_begins_a_trace(batch, creates.iter().map(|create| &create.span_context))?;
        let count = attribute_text(batch, "messaging.batch.message_count");
        check_eq!(count, batch.links.len().to_string(), "the number of messages of a batch, and of its links");
    }
    world.expect_whole_traces();
    world.spans.check_everything_resolves()
}

async fn b06_a_batch_of_more_than_128_drops_no_link(world: &World) -> Checked {
    const COUNT: usize = 300;
    consume_batch_of(world, COUNT).await?;
    let spans = world.spans.named(&world.process_name());
    let creates = world.spans.named(&format!("create {}", world.topic));
    check!(linked(&spans) == ids(&creates), "each creation context is linked, once");
    let mut largest = 0;
    for span in &spans {
        check_eq!(span.links.dropped_count, 0, "the number of links that are dropped");
        check_kind(span, SpanKind::Consumer)?;
        if !is_root(span) {
            continue;
        }
        let more = spans.iter().filter(|other| other.parent_span_id == span.span_context.span_id());
        let links = span.links.len() + more.map(|other| other.links.len()).sum::<usize>();
        let count = attribute_text(span, "messaging.batch.message_count");
        check_eq!(count, links.to_string(), "the number of messages of a batch, and of links of it and its children");
        largest = largest.max(links);
    }
    check!(largest > 128, "more than 128 messages were handled at once: {largest}");
    world.expect_whole_traces();
    world.spans.check_everything_resolves()
}

/// Publishes so many messages and has them handled by as few batches as can be.
async fn consume_batch_of(world: &World, count: usize) -> Checked {
    let (broker, journal) = (world.broker().await?, Journal::default());
    let handler = async |batch: Vec<Received>| {
        batch.iter().for_each(|message| journal.write(text(message.payload())));
        Ok::<_, HandlerError>(Vec::new())
    };
    world.make_group("g").await?;
    let waiting = async {
        if !world.capabilities.backlog || !world.capabilities.at_least_once {
            // The batch is awaited before it is published.
            tokio::time::sleep(world.harness.quiet()).await;
        }
        let messages = numbers(count).into_iter().map(Message::new).collect();
        for result in broker.publish_batch(&world.topic, messages).await {
            result?;
        }
        journal.has(world, count).await;
        Checked::Ok(())
    };
    let mut published = Ok(());
    let consume = broker.consume_batch(world.group("g"), handler).size(count).linger(Duration::from_secs(1));
    consume.run_until(async { published = waiting.await }).await?;
    published?;
    broker.close().await?;
    let mut handled = journal.lines();
    handled.sort_by_key(|number| number.parse().unwrap_or(usize::MAX));
    check_eq!(handled, numbers(count), "what was handled");
    Ok(())
}

async fn b28_a_batch_that_fails_says_so_on_its_span(world: &World) -> Checked {
    let (broker, journal) = (world.broker().await?, Journal::default());
    let handler = async |batch: Vec<Received>| {
        let mut failed = Vec::new();
        for (index, message) in batch.iter().enumerate() {
            journal.write(text(message.payload()));
            match (&*text(message.payload()), message.attempt()) {
                ("bad", 1) => failed.push(Failed { index, error: HandlerError::retry("no stock") }),
                ("panics", 1) => std::panic::resume_unwind(Box::new("a bug")),
                _ => {}
            }
        }
        Ok::<_, HandlerError>(failed)
    };
    world.make_group("g").await?;
    let consume = broker.consume_batch(world.group("g"), handler).size(1).retry(Retry::immediate(5));
    let publishing = async {
        tokio::time::sleep(world.harness.quiet()).await;
        for payload in ["bad", "panics"] {
            broker.publish(&world.topic, Message::new(payload).key("one")).await?;
        }
        journal.has(world, 4).await;
        Checked::Ok(())
    };
    let mut published = Ok(());
    consume.run_until(async { published = publishing.await }).await?;
    published?;
    broker.close().await?;
    let spans = world.spans.named(&world.process_name());
    check_eq!(spans.len(), 4, "the number of process spans");
    let failed: BTreeMap<String, &SpanData> =
        spans.iter().map(|span| (attribute_text(span, "error.type"), span)).collect();
    let kinds: Vec<&str> = failed.keys().map(String::as_str).collect();
    check_eq!(kinds, ["", "handler_error", "panic"], "the error types of the spans");
    check_failed(failed["handler_error"], "handler_error", "1 of 1 messages failed, the first: no stock")?;
    check_failed(failed["panic"], "panic", "a bug")
}

fn ids(spans: &[SpanData]) -> Vec<[u8; 8]> {
    sorted(spans.iter().map(|span| span.span_context.span_id()))
}

/// What the spans link, repetitions included.
fn linked(spans: &[SpanData]) -> Vec<[u8; 8]> {
    sorted(spans.iter().flat_map(|span| span.links.iter()).map(|link| link.span_context.span_id()))
}

fn sorted(ids: impl Iterator<Item = SpanId>) -> Vec<[u8; 8]> {
    let mut ids: Vec<[u8; 8]> = ids.map(SpanId::to_bytes).collect();
    ids.sort_unstable();
    ids
}
