//! Batches of messages: a context for each message published, and a link for each message consumed,
//! however many there are.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry::trace::{SpanId, SpanKind, TraceContextExt};
use opentelemetry_sdk::trace::SpanData;

use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, numbers, text};
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::journal::Journal;
use crate::conformance::spans::{attribute_text, check_begins_a_trace, check_failed, check_kind, is_root};
use crate::message::{HandlerError, Message, Received};
use crate::runtime::TracedBrokerExt;
use crate::runtime::consume::{Failed, Retry};

crate::conformance::case::cases! { Trace:
    b04_each_message_of_a_batch_has_its_own_context []
        "Each message of a batch has its own creation context; the send spans link all of them.";
    b05_a_batch_is_one_span_that_links_every_message []
        "The process span of a batch begins its own trace and links the creation context of every message, once.";
    b06_a_batch_of_more_than_128_drops_no_link []
        "A batch with more messages than a span can hold links for still links every one of them.";
    b28_a_batch_that_fails_says_so_on_its_span [AtLeastOnce]
        "The process span of a batch in which messages fail has the error, and the number that failed.";
}

async fn b04_each_message_of_a_batch_has_its_own_context(case: &CaseContext) -> Checked {
    const COUNT: usize = 150;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").prefetch(COUNT)).await?;
    let root = case.root("import");
    let guard = root.clone().attach();
    let messages = numbers(COUNT).into_iter().map(|number| Message::new(number).key("one")).collect();
    let publish = broker.publish_batch(&case.topic, messages);
    drop(guard);
    for result in publish.await {
        result?;
    }
    let mut order = Vec::new();
    for _ in 0..COUNT {
        let delivery = case.next(&mut deliveries).await?;
        order.push(text(delivery.message().payload()));
        delivery.process(|_| async { Ok(()) }).await?;
    }
    root.span().end();
    broker.close().await?;
    check_eq!(order, numbers(COUNT), "the order");
    let trace = root.span().span_context().trace_id();
    check!(case.spans.all().iter().all(|span| span.span_context.trace_id() == trace), "all spans are in one trace");
    case.expect_whole_traces();
    check_batch(case, COUNT)
}

fn check_batch(case: &CaseContext, count: usize) -> Checked {
    case.spans.check_everything_resolves()?;
    let creates = case.spans.named(&format!("create {}", case.topic));
    let sends = case.spans.named(&case.send_name());
    let processes = case.spans.named(&case.process_name());
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

async fn b05_a_batch_is_one_span_that_links_every_message(case: &CaseContext) -> Checked {
    const COUNT: usize = 100;
    consume_batch_of(case, COUNT).await?;
    let batches = case.spans.named(&case.process_name());
    let creates = case.spans.named(&format!("create {}", case.topic));
    check!(linked(&batches) == ids(&creates), "each creation context is linked, once");
    for batch in &batches {
        check_kind(batch, SpanKind::Consumer)?;
        check_begins_a_trace(batch, creates.iter().map(|create| &create.span_context))?;
        let count = attribute_text(batch, "messaging.batch.message_count");
        check_eq!(count, batch.links.len().to_string(), "the number of messages of a batch, and of its links");
    }
    case.expect_whole_traces();
    case.spans.check_everything_resolves()
}

async fn b06_a_batch_of_more_than_128_drops_no_link(case: &CaseContext) -> Checked {
    const COUNT: usize = 300;
    consume_batch_of(case, COUNT).await?;
    let spans = case.spans.named(&case.process_name());
    let creates = case.spans.named(&format!("create {}", case.topic));
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
    case.expect_whole_traces();
    case.spans.check_everything_resolves()
}

/// Publishes `count` messages, and handles them in as few batches as possible.
async fn consume_batch_of(case: &CaseContext, count: usize) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let handler = async |batch: Vec<Received>| {
        batch.iter().for_each(|message| journal.write(text(message.payload())));
        Ok::<_, HandlerError>(Vec::new())
    };
    case.make_group("g").await?;
    let waiting = async {
        if !case.capabilities.backlog || !case.capabilities.at_least_once {
            // The consumer must wait for the batch before it is published.
            tokio::time::sleep(case.harness.quiet()).await;
        }
        let messages = numbers(count).into_iter().map(Message::new).collect();
        for result in broker.publish_batch(&case.topic, messages).await {
            result?;
        }
        journal.has(case, count).await;
        Checked::Ok(())
    };
    let mut published = Ok(());
    let consume = broker.consume_batch(case.group("g"), handler).size(count).linger(Duration::from_secs(1));
    consume.run_until(async { published = waiting.await }).await?;
    published?;
    broker.close().await?;
    let mut handled = journal.lines();
    handled.sort_by_key(|number| number.parse().unwrap_or(usize::MAX));
    check_eq!(handled, numbers(count), "what was handled");
    Ok(())
}

async fn b28_a_batch_that_fails_says_so_on_its_span(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
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
    case.make_group("g").await?;
    let consume = broker.consume_batch(case.group("g"), handler).size(1).retry(Retry::immediate(5));
    let publishing = async {
        tokio::time::sleep(case.harness.quiet()).await;
        for payload in ["bad", "panics"] {
            broker.publish(&case.topic, Message::new(payload).key("one")).await?;
        }
        journal.has(case, 4).await;
        Checked::Ok(())
    };
    let mut published = Ok(());
    consume.run_until(async { published = publishing.await }).await?;
    published?;
    broker.close().await?;
    let spans = case.spans.named(&case.process_name());
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

/// Returns the ids of the spans that are linked, including repetitions.
fn linked(spans: &[SpanData]) -> Vec<[u8; 8]> {
    sorted(spans.iter().flat_map(|span| span.links.iter()).map(|link| link.span_context.span_id()))
}

fn sorted(ids: impl Iterator<Item = SpanId>) -> Vec<[u8; 8]> {
    let mut ids: Vec<[u8; 8]> = ids.map(SpanId::to_bytes).collect();
    ids.sort_unstable();
    ids
}
