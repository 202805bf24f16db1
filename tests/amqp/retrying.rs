//! Messages that wait at the broker for a retry.

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use traced_broker::driver::{Disposition, Driver, DriverExt, Inbound};
use traced_broker::{ErrorKind, Subscription, Topic};

use crate::driving::*;

const NOW: Disposition = Disposition::Retry(Duration::ZERO);

fn after(milliseconds: u64) -> Disposition {
    Disposition::Retry(Duration::from_millis(milliseconds))
}

async fn waiting_in(queue: &str) -> u32 {
    let channel = raw().await.create_channel().await.unwrap();
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap().message_count()
}

fn assert_is(inbound: &Inbound, payload: &str, attempt: u32) {
    assert_eq!((text(inbound), inbound.attempt), (payload.to_owned(), attempt));
}

#[tokio::test]
async fn a_delayed_retry_comes_back_to_its_group_alone_and_is_counted_on() {
    let topic = unique("later");
    let amqp = connect("").await.unwrap();
    let mut ours = subscribe(&amqp, group(&topic, "ours")).await;
    let mut other = subscribe(&amqp, group(&topic, "other")).await;
    let mut message = outbound("again");
    message.key = Some("k".into());
    message.headers.append("tenant", "acme");
    confirmed(amqp.enqueue(&topic, message)).await.unwrap();
    assert_eq!(next_text(&mut other).await, "again");
    let first = next(&mut ours).await;
    let stamp = first.timestamp;
    let asked = Instant::now();
    settle(first, after(300)).await.unwrap();
    let back = next(&mut ours).await;
    assert!(asked.elapsed() >= Duration::from_millis(300), "after {:?}", asked.elapsed());
    assert_is(&back, "again", 2);
    assert_eq!(back.headers.iter().collect::<Vec<_>>(), [("tenant", &b"acme"[..])]);
    assert_eq!((back.key.as_deref(), back.unreadable_headers), (Some(&b"k"[..]), 0));
    assert_eq!(back.timestamp, stamp, "when it was published");
    settle(back, Disposition::Ack).await.unwrap();
    silent(&mut other).await;
    silent(&mut ours).await;
    assert_eq!(waiting_in(&format!("{topic}.ours")).await, 0);
}

#[tokio::test]
async fn attempts_are_counted_on_over_retries_of_both_kinds() {
    let topic = unique("counted");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("again"))).await.unwrap();
    // The same two queues are passed twice: the broker drops a message if it detects a cycle.
    let retries = [after(30), NOW, NOW, after(1000), after(1), NOW, after(1000)];
    for (attempt, retry) in (1..).zip(retries) {
        let inbound = next(&mut source).await;
        assert_is(&inbound, "again", attempt);
        settle(inbound, retry).await.unwrap();
    }
    let inbound = next(&mut source).await;
    assert_is(&inbound, "again", retries.len() as u32 + 1);
    settle(inbound, Disposition::Ack).await.unwrap();
    silent(&mut source).await;
}

#[tokio::test]
async fn a_delayed_retry_needs_no_consumer_while_it_waits() {
    let topic = unique("nobody");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("kept"))).await.unwrap();
    let inbound = next(&mut source).await;
    let begin = Instant::now();
    settle(inbound, after(3000)).await.unwrap();
    amqp.close().await.unwrap();
    drop(source);
    assert_eq!(waiting_in(&format!("{topic}.g")).await, 0, "the original is settled: only the copy is left");

    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    silent(&mut source).await;
    let inbound = next(&mut source).await;
    assert_is(&inbound, "kept", 2);
    assert!(begin.elapsed() >= Duration::from_millis(3000));
    settle(inbound, Disposition::Ack).await.unwrap();
    silent(&mut source).await;
}

#[tokio::test]
async fn closing_waits_for_retries_under_way() {
    const COUNT: u32 = 100;
    let topic = unique("closing");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    for n in 0..COUNT {
        confirmed(amqp.enqueue(&topic, outbound(n.to_string()))).await.unwrap();
    }
    let begin = Instant::now();
    for _ in 0..COUNT {
        // The outcome is not awaited.
        drop(next(&mut source).await.handle.settle(after(6000)));
    }
    amqp.close().await.unwrap();
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..COUNT {
        let inbound = next(&mut source).await;
        assert!(begin.elapsed() >= Duration::from_millis(6000), "it was not just given back");
        assert_eq!(inbound.attempt, 2);
        assert!(seen.insert(text(&inbound)), "none twice: the originals were settled");
        settle(inbound, Disposition::Ack).await.unwrap();
    }
    silent(&mut source).await;
}

#[tokio::test]
async fn a_retry_that_cannot_be_kept_fails_and_the_message_is_given_back() {
    const DAYS: u64 = 24 * 60 * 60 * 1000;
    let topic = unique("given-back");
    let amqp = connect("").await.unwrap();
    make_group(&topic, "g").await;
    confirmed(amqp.enqueue(&topic, outbound("kept"))).await.unwrap();
    let strict = connect("?topology=check").await.unwrap();
    let mut source = subscribe(&strict, group(&topic, "g").prefetch(1)).await;
    // No test creates the queues for the first delay, and queues for the second cannot exist.
    for (attempt, delay, kind) in [(1, 40 * DAYS, ErrorKind::NotFound), (2, 50 * DAYS, ErrorKind::InvalidMessage)] {
        let inbound = next(&mut source).await;
        assert_is(&inbound, "kept", attempt);
        let error = settle(inbound, after(delay)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        silent(&mut source).await;
    }
    let inbound = next(&mut source).await;
    assert_is(&inbound, "kept", 3);
    settle(inbound, Disposition::Ack).await.unwrap();
    silent(&mut source).await;
}

#[tokio::test]
async fn a_reader_without_a_group_retries_later_too() {
    let topic = unique("reader-later");
    let amqp = connect("").await.unwrap();
    let mut reader = subscribe(&amqp, Subscription::new(topic.as_str())).await;
    confirmed(amqp.enqueue(&topic, outbound("again"))).await.unwrap();
    let begin = Instant::now();
    settle(next(&mut reader).await, after(400)).await.unwrap();
    let inbound = next(&mut reader).await;
    assert_is(&inbound, "again", 2);
    assert!(begin.elapsed() >= Duration::from_millis(400));
    settle(inbound, Disposition::Ack).await.unwrap();
    silent(&mut reader).await;
}

/// A retried message keeps the properties and headers of a foreign publisher, of every type.
#[tokio::test]
async fn what_comes_back_is_what_a_foreign_publisher_wrote() {
    let topic = unique("foreign");
    let queue = format!("{topic}.g");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let channel = raw().await.create_channel().await.unwrap();
    let mut inner = FieldTable::default();
    inner.insert(
        "deep".into(),
        AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void, AMQPValue::Boolean(true)])),
    );
    let mut headers = FieldTable::default();
    headers.insert("number".into(), AMQPValue::LongUInt(7));
    headers.insert("real".into(), AMQPValue::Double(1.5));
    headers.insert("bytes".into(), AMQPValue::ByteArray(b"\xff".as_slice().into()));
    headers.insert("table".into(), AMQPValue::FieldTable(inner));
    headers.insert("delivery-note".into(), AMQPValue::LongString("mine".into()));
    let properties = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_priority(3)
        .with_reply_to("answers".into())
        .with_type("order".into())
        .with_app_id("shop".into())
        .with_message_id("m-1".into())
        .with_correlation_id("c-1".into())
        .with_timestamp(1_700_000_000)
        .with_headers(headers.clone());
    // With these two properties the broker would refuse the copy, and would end its wait.
    let sent = properties.clone().with_user_id("guest".into()).with_expiration("3000".into());
    let (options, key) = (BasicPublishOptions::default(), "some.key".into());
    channel.basic_publish(topic.as_str().into(), key, options, b"body", sent).await.unwrap();
    let begin = Instant::now();
    settle(next(&mut source).await, after(4000)).await.unwrap();
    let inbound = next(&mut source).await;
    assert_is(&inbound, "body", 2);
    assert!(begin.elapsed() >= Duration::from_millis(4000));
    assert_eq!(inbound.unreadable_headers, 1, "the table");
    drop((inbound, source));
    amqp.close().await.unwrap();

    let got = channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap();
    let delivery = got.expect("given back").delivery;
    assert_eq!((delivery.data.as_slice(), delivery.routing_key.as_str()), (&b"body"[..], "some.key"));
    let found = &delivery.properties;
    let table = found.headers().clone().unwrap();
    for (name, value) in headers.inner() {
        assert_eq!(table.inner().get(name), Some(value), "{name}");
    }
    // Copies carry the user that the broker checked.
    let expected = properties.with_user_id("guest".into()).with_delivery_mode(2).with_headers(table);
    assert_eq!(*found, expected);
}

/// Any publisher can write headers; a number of attempts is trusted only on a message that waited
/// for this queue.
#[tokio::test]
async fn attempts_at_another_queue_are_not_believed() {
    let topic = unique("forged");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let channel = raw().await.create_channel().await.unwrap();
    for target in [None, Some("queue:elsewhere".to_owned()), Some(format!("topic:{topic}"))] {
        let mut headers = FieldTable::default();
        headers.insert("prior-attempts".into(), AMQPValue::LongLongInt(i64::MAX));
        if let Some(target) = target {
            headers.insert("delayed-for".into(), AMQPValue::LongString(target.into()));
        }
        let properties = BasicProperties::default().with_headers(headers);
        let options = BasicPublishOptions::default();
        channel.basic_publish(topic.as_str().into(), "".into(), options, b"x", properties).await.unwrap();
        let inbound = next(&mut source).await;
        assert_is(&inbound, "x", 1);
        assert!(inbound.headers.is_empty());
        settle(inbound, Disposition::Ack).await.unwrap();
    }
}

/// Retries that wait when their queue is deleted are set aside, and do not hold up other messages.
#[tokio::test]
async fn what_waits_for_a_queue_that_is_deleted_is_kept_apart() {
    let (topic, other) = (unique("deleted-group"), unique("kept-group"));
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let mut kept = subscribe(&amqp, group(&other, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("lost"))).await.unwrap();
    confirmed(amqp.enqueue(&other, outbound("kept"))).await.unwrap();
    settle(next(&mut source).await, after(6000)).await.unwrap();
    settle(next(&mut kept).await, after(6200)).await.unwrap();
    let before = waiting_in("traced-broker.delay.v1.lost").await;
    drop(source);
    delete(&topic).await;
    let inbound = next(&mut kept).await;
    assert_is(&inbound, "kept", 2);
    let begin = Instant::now();
    while waiting_in("traced-broker.delay.v1.lost").await == before {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn delete(topic: &Topic) {
    let channel = raw().await.create_channel().await.unwrap();
    channel.queue_delete(format!("{topic}.g").into(), QueueDeleteOptions::default()).await.unwrap();
}
