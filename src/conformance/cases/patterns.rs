//! Operations built on publishing and consuming: batches, requests, redriven dead letters.

use crate::names::header;
use std::collections::BTreeSet;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::trace::SpanData;

use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, text};
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::journal::{Journal, up_to};
use crate::message::{HandlerError, Message, Received};
use crate::runtime::TracedBrokerExt;
use crate::runtime::consume::{Failed, Retry};

crate::conformance::case::cases! { Runtime:
    settles_each_message_of_a_batch_by_its_own_outcome [AtLeastOnce]
        "In a batch, handled messages are not redelivered, retried ones are, and rejected ones are dead-lettered.";
    answers_each_request_with_its_reply []
        "Requests get their own replies, however many wait at a time.";
    sends_dead_letters_back [AtLeastOnce]
        "A redriven dead letter returns to its original topic: key, headers and trace are kept, the dead-letter headers are gone.";
}

async fn settles_each_message_of_a_batch_by_its_own_outcome(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let dead_topic = case.topic("dead");
    let mut dead = broker.subscribe(case.group_on(&dead_topic, "desk")).await?;
    let handler = async |batch: Vec<Received>| {
        let mut failed = Vec::new();
        for (index, message) in batch.iter().enumerate() {
            let number: usize = text(message.payload()).parse()?;
            match number % 5 {
                1 if message.attempt() == 1 => failed.push(Failed { index, error: HandlerError::retry("busy") }),
                2 => failed.push(Failed { index, error: HandlerError::reject("never") }),
                _ => journal.write(number.to_string()),
            }
        }
        Ok::<_, HandlerError>(failed)
    };
    let consume = broker.consume_batch(case.group("g"), handler).size(10).linger(Duration::from_millis(200));
    let consume = consume.dead_letter(&dead_topic).retry(Retry::immediate(5));
    // The group must exist before the messages, because some brokers keep no backlog for later
    // groups.
    case.make_group("g").await?;
    let messages = (0..30).map(|number| Message::new(number.to_string())).collect();
    for result in broker.publish_batch(&case.topic, messages).await {
        result?;
    }
    let mut letters = Ok(Vec::new());
    let all = async {
        journal.has(case, 24).await;
        letters = case.drain(&mut dead, 6).await;
    };
    let report = consume.run_until(all).await?;
    let expected: BTreeSet<String> = up_to(30).into_iter().filter(|line| !is_dead(line)).collect();
    check_eq!(journal.set(), expected, "what was handled");
    check_eq!(
        letters?.into_iter().collect::<BTreeSet<_>>(),
        up_to(30).into_iter().filter(|line| is_dead(line)).collect(),
        "what is dead"
    );
    check_eq!((report.handled, report.retried, report.rejected), (24, 6, 6), "what the report says: {report}");
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    case.nothing_comes(&mut deliveries).await
}

fn is_dead(number: &str) -> bool {
    number.parse::<usize>().is_ok_and(|number| number % 5 == 2)
}

async fn answers_each_request_with_its_reply(case: &CaseContext) -> Checked {
    let limit = case.harness.patience();
    let desk = case.broker().await?;
    let handler = async |request: Received| {
        let doubled = text(request.payload()).repeat(2);
        desk.reply(&request, Message::new(doubled)).await?;
        Ok::<_, HandlerError>(())
    };
    let answering = desk.consume(case.group("desk"), handler).concurrency(8).subscribed().await?;
    let asking = async {
        let requester = case.broker().await?.requester(&case.topic("replies")).await?;
        let first = requester.request(&case.topic, Message::new("a"), limit).await?;
        check_eq!(text(first.payload()), "aa", "the reply to the first request");
        let requests = (0..40).map(|number| requester.request(&case.topic, Message::new(format!("{number};")), limit));
        for (number, reply) in futures_util::future::join_all(requests).await.into_iter().enumerate() {
            check_eq!(text(reply?.payload()), format!("{number};{number};"), "the reply to request {number}");
        }
        Checked::Ok(())
    };
    let mut asked = Err(Failure::new("requests were not even begun"));
    answering.run_until(async { asked = asking.await }).await?;
    asked?;
    Ok(())
}

async fn sends_dead_letters_back(case: &CaseContext) -> Checked {
    let (broker, journal) = (case.broker().await?, Journal::default());
    let dead_topic = case.topic("dead");
    let redrive = case.group_name("redrive");
    drop(broker.subscribe(case.group_on(&dead_topic, "redrive")).await?);
    let broken = async |_: Received| {
        journal.write("failed");
        Err::<(), _>(HandlerError::reject("broken"))
    };
    let consumer = broker.consume(case.group("g"), broken).dead_letter(&dead_topic).subscribed().await?;
    let root = case.root("order");
    let messages =
        (0..10).map(|number| Message::new(number.to_string()).key("k").header("tenant", "acme").context(root.clone()));
    for result in broker.publish_batch(&case.topic, messages.collect()).await {
        result?;
    }
    let report = consumer.run_until(journal.has(case, 10)).await?;
    check_eq!(report.rejected, 10, "what was rejected: {report}");

    let idle = Duration::from_secs(5).max(case.harness.quiet());
    let redriven = broker.redrive(&dead_topic).group(&redrive).idle(idle).at_most(10).run().await?;
    check_eq!((redriven.sent_back, redriven.left), (10, 0), "what was sent back, and left");
    let mended = Journal::default();
    let trace = root.span().span_context().trace_id();
    let handler = async |message: Received| {
        let dead = message.headers().iter().any(|(name, _)| header::DEAD_LETTER.contains(&name));
        let tenant = message.headers().get_str("tenant").unwrap_or("none");
        let current = Context::current().span().span_context().trace_id();
        check_eq!((tenant, dead, message.attempt()), ("acme", false, 1), "tenant, marks of death, attempt");
        check_eq!(message.key().map(|key| text(key)), Some("k".to_owned()), "the key");
        check!(current != trace, "what is done again is a trace of its own");
        mended.write(text(message.payload()));
        Ok::<_, HandlerError>(())
    };
    let report = broker.consume(case.group("g"), handler).run_until(mended.has(case, 10)).await?;
    check_eq!((mended.set(), report.retried), (up_to(10), 0), "what came again: {report}");
    broker.close().await?;
    let again = case.spans.named(&case.process_name()).into_iter();
    let again: Vec<_> = again.filter(|span| span.span_context.trace_id() != trace).collect();
    check_eq!(again.len(), 10, "the process spans of what came again");
    let linked = |span: &SpanData| span.links.iter().any(|link| link.span_context.trace_id() == trace);
    check!(again.iter().all(linked), "what is done again is linked to the first time");
    Ok(())
}
