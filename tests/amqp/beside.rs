//! Messages to good topics on the channel that the broker ends because of another message.

use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use traced_broker::driver::{Driver, DriverExt};
use traced_broker::{ErrorKind, PublishOutcome, Topic};

use crate::driving::*;

/// Number of messages in flight before and after the refused one.
const BEFORE: usize = 256;
const AFTER: usize = 255;

/// The broker ignores everything behind the refused message. So those are sent again, in order, and
/// their senders notice nothing.
async fn only_what_was_sent_before_a_refused_message_may_be_lost(
    refused: &Topic,
    kind: ErrorKind,
    known: bool,
    size: usize,
) {
    let padded = |n: usize| outbound(format!("{n:0size$}"));
    let good = unique("good");
    let consuming = connect("").await.unwrap();
    let mut source = subscribe(&consuming, group(&good, "g")).await;
    let amqp = connect("?topology=check").await.unwrap();
    if known {
        consuming.declare(refused).await.unwrap();
        confirmed(amqp.enqueue(refused, outbound("x"))).await.unwrap();
        let channel = raw().await.create_channel().await.unwrap();
        channel.exchange_delete(refused.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    }
    confirmed(amqp.enqueue(&good, outbound("first"))).await.unwrap();
    let mut answers: Vec<_> = (0..BEFORE).map(|n| amqp.enqueue(&good, padded(n))).collect();
    let bad = amqp.enqueue(refused, outbound("bad"));
    answers.extend((BEFORE..BEFORE + AFTER).map(|n| amqp.enqueue(&good, padded(n))));
    assert_eq!(confirmed(bad).await.unwrap_err().kind(), kind);
    let (mut taken, mut unknown) = (Vec::new(), Vec::new());
    for (n, answer) in answers.into_iter().enumerate() {
        match confirmed(answer).await {
            Ok(_) => taken.push(n),
            Err(error) if error.publish_outcome() == PublishOutcome::Unknown => unknown.push(n),
            Err(error) => panic!("{n} was not sent: {error}"),
        }
    }
    eprintln!("{refused}: {} unknown, {} confirmed", unknown.len(), taken.len());
    assert!(unknown.iter().all(|n| *n < BEFORE), "{unknown:?}");
    assert_eq!(next_text(&mut source).await, "first");
    let mut seen = Vec::new();
    while taken.iter().any(|n| !seen.contains(n)) {
        seen.push(next_text(&mut source).await.parse::<usize>().unwrap());
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "each once, in order: {seen:?}");
    silent(&mut source).await;
}

#[tokio::test]
async fn a_deleted_exchange_costs_nothing_that_was_sent_after_it() {
    let gone = unique("gone-beside");
    only_what_was_sent_before_a_refused_message_may_be_lost(&gone, ErrorKind::NotFound, true, 1).await;
}

/// Nobody may publish to the broker's own exchange.
#[tokio::test]
async fn a_forbidden_exchange_costs_nothing_that_was_sent_after_it() {
    let forbidden = Topic::new("amq.rabbitmq.trace").unwrap();
    only_what_was_sent_before_a_refused_message_may_be_lost(&forbidden, ErrorKind::PermissionDenied, false, 1).await;
}

/// Most of these wait in this process when the channel ends.
#[tokio::test]
async fn messages_that_are_not_written_yet_are_sent_on_the_next_channel() {
    let gone = unique("gone-large");
    only_what_was_sent_before_a_refused_message_may_be_lost(&gone, ErrorKind::NotFound, true, 60_000).await;
}

/// The topic is tried again after a second, however many messages were refused with it.
#[tokio::test]
async fn many_messages_that_are_lost_together_are_one_refusal() {
    let gone = unique("gone-once");
    let consuming = connect("").await.unwrap();
    consuming.declare(&gone).await.unwrap();
    let amqp = connect("?topology=check").await.unwrap();
    confirmed(amqp.enqueue(&gone, outbound("x"))).await.unwrap();
    let channel = raw().await.create_channel().await.unwrap();
    channel.exchange_delete(gone.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    let lost: Vec<_> = (0..64).map(|_| amqp.enqueue(&gone, outbound("x"))).collect();
    for answer in lost {
        confirmed(answer).await.unwrap_err();
    }
    consuming.declare(&gone).await.unwrap();
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = channel.queue_declare("".into(), exclusive, FieldTable::default()).await.unwrap();
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(queue.name().clone(), gone.as_str().into(), "#".into(), options, none).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    confirmed(amqp.enqueue(&gone, outbound("x"))).await.unwrap();
}
