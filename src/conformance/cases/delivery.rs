//! Published messages arrive unchanged at every consumer that should get them.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;

use super::refusing::Refusing;
use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, numbers, refused, text};
use crate::conformance::failure::{Checked, check, check_eq};
use crate::error::{ErrorKind, PublishOutcome};
use crate::message::{Message, Start};

crate::conformance::case::cases! { Delivery:
    confirms_and_delivers_exactly_what_was_sent []
        "A confirmed message arrives once, with its payload, key, id and headers, including repeated ones.";
    carries_payloads_of_any_size []
        "Payloads arrive byte for byte: empty, short, every byte value, half a megabyte.";
    refuses_a_payload_over_the_limit []
        "A payload over the limit that the broker states is TooLarge, NotSent, and never arrives.";
    carries_a_tombstone [Tombstones]
        "A message without a payload arrives as such, and one with an empty payload is different.";
    keeps_headers_of_messages_apart []
        "With many messages in flight, each arrives with its own headers, key and id.";
    keeps_topics_apart []
        "With twenty topics in use at once, each subscriber gets the messages of its own topic.";
    shares_within_a_group_and_copies_to_each_group [Groups]
        "Within a group each message goes to one member; each group gets all of them.";
    gives_a_new_group_the_backlog [Groups, Backlog]
        "A new group gets what was published before it existed, in order.";
    begins_a_group_at_the_latest_when_asked [Groups]
        "A new group that asks for the latest gets messages published from then on.";
    starts_an_ephemeral_reader_at_the_latest []
        "Each reader without a group gets its own copy of every message published after it began.";
    reports_each_message_of_a_batch []
        "A batch has a result for each message, in order; those that are refused never arrive, the others do.";
}

async fn confirms_and_delivers_exactly_what_was_sent(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let payload: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let message = Message::new(payload.clone())
        .key("customer-7")
        .id("order-1")
        .header("content-type", "application/octet-stream")
        .header("tenant", "acme")
        .header("x-repeated", "one")
        .header("x-repeated", "two, with a comma")
        .header("x-text", "größer als – 100 €");
    let receipt = broker.publish(&case.topic, message).await?;
    case.check_receipt(&receipt)?;

    let delivery = case.next(&mut deliveries).await?;
    let message = delivery.message();
    check!(message.payload() == &payload, "the payload is what was sent");
    check_eq!(message.key().map(|key| text(key)).as_deref(), Some("customer-7"), "the key");
    check_eq!(message.id(), Some("order-1"), "the id");
    check_eq!(message.attempt(), 1, "the attempt");
    check!(!message.is_tombstone(), "a message with a payload is no tombstone");
    check_eq!(message.headers().get_str("content-type"), Some("application/octet-stream"), "the content type");
    check_eq!(message.headers().get_str("tenant"), Some("acme"), "a header");
    check_eq!(message.headers().get_str("x-text"), Some("größer als – 100 €"), "a header");
    let repeated: Vec<String> = message.headers().get_all("x-repeated").map(text).collect();
    check_eq!(repeated, ["one", "two, with a comma"], "a repeated header");
    check_eq!(message.headers().get_all("traceparent").count(), 1, "how many traceparents there are");
    if case.capabilities.timestamp.is_some() {
        let queued = message.time_in_queue();
        check!(
            queued.is_some_and(|queued| queued < case.harness.patience()),
            "a time in the queue that can be: {queued:?}"
        );
    }
    delivery.ack().await?;
    case.nothing_comes(&mut deliveries).await
}

async fn carries_payloads_of_any_size(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let limit = case.capabilities.max_payload.unwrap_or(usize::MAX);
    let large = (512 * 1024).min(limit / 2);
    let sizes = [0, 1, 2, 255, 256, 1023, 4096, 65_535, 65_536, large];
    for size in sizes {
        // Payloads differ from each other, and long ones contain every byte value.
        let payload: Vec<u8> = (0..size).map(|index| (index ^ (index >> 8) ^ size) as u8).collect();
        broker.publish(&case.topic, Message::new(payload.clone()).key("one")).await?;
        let delivery = case.next(&mut deliveries).await?;
        check_eq!(delivery.message().payload().len(), size, "the length of the payload");
        check!(delivery.message().payload() == &payload, "the payload of {size} bytes is what was sent");
        check!(!delivery.message().is_tombstone(), "a payload of {size} bytes is a payload");
        delivery.ack().await?;
    }
    Ok(())
}

async fn refuses_a_payload_over_the_limit(case: &CaseContext) -> Checked {
    /// Maximum number of bytes that a test can afford to hold in memory.
    const AFFORDABLE: usize = 192 * 1024 * 1024;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    if let Some(limit) = case.capabilities.max_payload.filter(|limit| *limit < AFFORDABLE) {
        let payload = Bytes::from(vec![7_u8; limit + 1]);
        let error = refused("a payload over the limit", broker.publish(&case.topic, Message::new(payload)).await)?;
        check_eq!(error.kind(), ErrorKind::TooLarge, "the kind of {error}");
        check_eq!(error.publish_outcome(), PublishOutcome::NotSent, "the outcome");
    }
    broker.publish(&case.topic, Message::new("after")).await?;
    check_eq!(case.drain(&mut deliveries, 1).await?, ["after"], "what arrives");
    case.nothing_comes(&mut deliveries).await
}

async fn carries_a_tombstone(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    broker.publish(&case.topic, Message::tombstone().key("gone")).await?;
    let delivery = case.next(&mut deliveries).await?;
    check!(delivery.message().is_tombstone(), "it has no payload");
    delivery.ack().await?;
    broker.publish(&case.topic, Message::new("").key("empty")).await?;
    let delivery = case.next(&mut deliveries).await?;
    check!(!delivery.message().is_tombstone(), "an empty payload is a payload");
    check!(delivery.message().payload().is_empty(), "it is empty");
    delivery.ack().await?;
    Ok(())
}

async fn keeps_headers_of_messages_apart(case: &CaseContext) -> Checked {
    const COUNT: usize = 60;
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g").prefetch(COUNT)).await?;
    let publishes = numbers(COUNT).into_iter().map(|number| {
        let message = Message::new(number.clone()).key(number.as_bytes()).id(number.clone());
        broker.publish(&case.topic, message.header("Number", &number).header("x-other", "o"))
    });
    for result in futures_util::future::join_all(publishes).await {
        result?;
    }
    let mut seen = BTreeSet::new();
    for arrived in 0..COUNT {
        let after = || format!("after {arrived} of {COUNT} messages");
        let delivery = case.next(&mut deliveries).await.map_err(|failure| failure.during(&after()))?;
        let message = delivery.message();
        let number = text(message.payload());
        let mut headers: Vec<(&str, String)> = message
            .headers()
            .iter()
            .map(|(name, value)| (name, text(value)))
            .filter(|(name, _)| ["number", "x-other"].contains(&&*name.to_ascii_lowercase()))
            .collect();
        headers.sort();
        check_eq!(
            headers,
            [("Number", number.clone()), ("x-other", "o".to_owned())],
            "the headers of message {number}"
        );
        check_eq!(message.key().map(|key| text(key)), Some(number.clone()), "the key of message {number}");
        check_eq!(message.id(), Some(&*number), "the id of message {number}");
        check!(seen.insert(number.clone()), "message {number} comes once");
        delivery.ack().await?;
    }
    Ok(())
}

async fn keeps_topics_apart(case: &CaseContext) -> Checked {
    const TOPICS: usize = 20;
    const EACH: usize = 10;
    let broker = case.broker().await?;
    let topics: Vec<String> = (0..TOPICS).map(|number| case.topic(&format!("t{number}"))).collect();
    let subscribing = topics.iter().map(|topic| broker.subscribe(case.group_on(topic, "g")));
    let mut subscribed = Vec::new();
    for deliveries in futures_util::future::join_all(subscribing).await {
        subscribed.push(deliveries?);
    }
    for number in 0..EACH {
        let publishes =
            topics.iter().map(|topic| broker.publish(topic, Message::new(format!("{topic}/{number}")).key("one")));
        for result in futures_util::future::join_all(publishes).await {
            result?;
        }
    }
    for (topic, deliveries) in topics.iter().zip(&mut subscribed) {
        let expected: Vec<String> = (0..EACH).map(|number| format!("{topic}/{number}")).collect();
        check_eq!(case.drain(deliveries, EACH).await?, expected, "what arrives at {topic}");
    }
    let all = futures_util::stream::select_all(subscribed);
    let more = tokio::time::timeout(case.harness.quiet(), all.into_future()).await;
    check!(more.is_err(), "nothing more arrives anywhere");
    Ok(())
}

async fn shares_within_a_group_and_copies_to_each_group(case: &CaseContext) -> Checked {
    const COUNT: usize = 200;
    let broker = case.broker().await?;
    let second = case.broker().await?;
    let mut one = broker.subscribe(case.group("shared").prefetch(10)).await?;
    let mut two = second.subscribe(case.group("shared").prefetch(10)).await?;
    let mut other = broker.subscribe(case.group("other")).await?;
    for number in numbers(COUNT) {
        broker.publish(&case.topic, Message::new(number.clone()).key(number)).await?;
    }
    let expected: BTreeSet<String> = numbers(COUNT).into_iter().collect();
    let mut seen = Vec::new();
    while seen.len() < COUNT {
        let delivery = case.within("the next message of the group", async {
            tokio::select! { item = one.next() => item, item = two.next() => item }
        });
        // An error that the stream reports, for example about a rebalance, is skipped.
        let Some(Ok(delivery)) = delivery.await? else { continue };
        seen.push(text(delivery.message().payload()));
        delivery.ack().await?;
    }
    check_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected, "each message once in the group");
    let copies = case.drain(&mut other, COUNT).await?;
    check_eq!(copies.into_iter().collect::<BTreeSet<_>>(), expected, "the messages of the other group");
    case.nothing_comes(&mut other).await
}

async fn gives_a_new_group_the_backlog(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    for number in numbers(20) {
        broker.publish(&case.topic, Message::new(number).key("one")).await?;
    }
    let mut early = broker.subscribe(case.group("early")).await?;
    check_eq!(case.drain(&mut early, 20).await?, numbers(20), "what was published before the group existed");
    Ok(())
}

async fn begins_a_group_at_the_latest_when_asked(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    case.publish_before(&broker).await?;
    let mut late = broker.subscribe(case.group("late").start(Start::Latest)).await?;
    broker.publish(&case.topic, Message::new("after").key("one")).await?;
    check_eq!(case.drain(&mut late, 1).await?, ["after"], "what arrives at a group that asks for the latest");
    case.nothing_comes(&mut late).await
}

async fn starts_an_ephemeral_reader_at_the_latest(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut responsible = broker.subscribe(case.group("keeper")).await?;
    case.publish_before(&broker).await?;
    let mut one = broker.subscribe(case.reader()).await?;
    let mut two = broker.subscribe(case.reader()).await?;
    broker.publish(&case.topic, Message::new("after").key("one")).await?;
    check_eq!(case.drain(&mut one, 1).await?, ["after"], "what arrives at a reader");
    check_eq!(case.drain(&mut two, 1).await?, ["after"], "what arrives at another reader");
    check_eq!(case.drain(&mut responsible, 2).await?, ["before", "after"], "what arrives at the group");
    Ok(())
}

async fn reports_each_message_of_a_batch(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let mut refused_payloads = vec!["refused"];
    let mut messages: Vec<Message> = numbers(6).into_iter().map(|number| Message::new(number).key("one")).collect();
    messages.insert(4, Message::new("refused").key("one"));
    // Messages that this broker itself refuses, if any.
    if !case.capabilities.tombstones {
        messages.insert(2, Message::tombstone().key("one"));
        refused_payloads.push("");
    }
    if !case.capabilities.delayed_publish {
        messages.insert(1, Message::new("later").key("one").delay(Duration::from_secs(60)));
        refused_payloads.push("later");
    }
    let expected: Vec<(String, bool)> = messages
        .iter()
        .map(|message| text(message.payload()))
        .map(|payload| (payload.clone(), !refused_payloads.contains(&&*payload)))
        .collect();

    let broker = case.traced(Refusing::payload(driver, "refused"));
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let results = broker.publish_batch(&case.topic, messages).await;
    let seen: Vec<(String, bool)> =
        expected.iter().zip(&results).map(|((payload, _), result)| (payload.clone(), result.is_ok())).collect();
    check_eq!(seen, expected, "which messages of the batch succeed");
    check_eq!(results.len(), expected.len(), "the number of results");
    for error in results.into_iter().filter_map(Result::err) {
        check_eq!(error.publish_outcome(), PublishOutcome::NotSent, "the outcome of {error}");
    }
    check_eq!(case.drain(&mut deliveries, 6).await?, numbers(6), "what arrives of the batch");
    case.nothing_comes(&mut deliveries).await
}
