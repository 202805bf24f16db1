//! Publishing: confirms, order, the contents of a message, refusals.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use traced_broker::driver::{Disposition, Driver, DriverExt};
use traced_broker::{ErrorKind, Headers, Message, PublishOutcome, Traced, TracedBroker};

use crate::driving::*;

#[tokio::test]
async fn concurrent_callers_each_keep_their_order_and_their_own_answer() {
    let topic = unique("callers");
    let missing = unique("callers-missing");
    let amqp = std::sync::Arc::new(connect("?unroutable=reject").await.unwrap());
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    amqp.declare(&missing).await.unwrap();
    let callers = (0..8).map(|caller| {
        let (amqp, topic, missing) = (std::sync::Arc::clone(&amqp), topic.clone(), missing.clone());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for n in 0..100 {
                let routed = (n + caller) % 3 > 0;
                let message = outbound(format!("{caller} {n}"));
                answers.push((routed, amqp.enqueue(if routed { &topic } else { &missing }, message)));
            }
            for (routed, answer) in answers {
                assert_eq!(confirmed(answer).await.is_ok(), routed);
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    let mut last = [-1; 8];
    let expected =
        (0..8).flat_map(|caller| (0..100).map(move |n| (caller + n) % 3 > 0)).filter(|routed| *routed).count();
    for _ in 0..expected {
        let text = next_text(&mut source).await;
        let (caller, n) = text.split_once(' ').unwrap();
        let (caller, n): (usize, i32) = (caller.parse().unwrap(), n.parse().unwrap());
        assert!(last[caller] < n, "{text} after {}", last[caller]);
        last[caller] = n;
    }
    silent(&mut source).await;
}

#[tokio::test]
async fn a_message_arrives_byte_for_byte() {
    let topic = unique("bytes");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let sizes = [0, 1, 131_064, 131_065, 1_000_000];
    for size in sizes {
        let mut message = outbound((0..size).map(|n| (n * 7 % 251) as u8).collect::<Vec<u8>>());
        message.key = Some(bytes::Bytes::from_static(b"key \xff\0"));
        message.id = Some("id-1".to_owned());
        message.headers.append("content-type", "application/json");
        message.headers.append("Content-Encoding", "identity");
        message.headers.append("correlation-id", "c-1");
        message.headers.append("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        message.headers.append("empty", "");
        message.headers.append("bytes", b"\xff\0\r\n");
        message.headers.append("twice", "1");
        message.headers.append("twice", b"\xfe");
        message.headers.append("twice", "3");
        message.headers.append("Twice", "other");
        let sent = message.clone();
        let before = SystemTime::now();
        confirmed(amqp.enqueue(&topic, message)).await.unwrap();

        let received = next(&mut source).await;
        assert_eq!(received.payload, sent.payload);
        assert_eq!(received.key, sent.key);
        assert_eq!(received.id, sent.id);
        assert_eq!(received.unreadable_headers, 0);
        assert_eq!(sorted(&received.headers), {
            let mut expected = sent.headers.clone();
            expected.insert("content-encoding", "identity");
            sorted(&expected)
        });
        let in_order: Vec<_> = received.headers.iter().filter(|(name, _)| *name == "twice").collect();
        assert_eq!(in_order, [("twice", &b"1"[..]), ("twice", b"\xfe"), ("twice", b"3")]);
        let timestamp = received.timestamp.unwrap();
        assert_eq!(timestamp.source.as_str(), "producer");
        let since = timestamp.time.duration_since(before - Duration::from_millis(1)).unwrap();
        assert!(since < Duration::from_secs(5), "milliseconds, not seconds: {since:?}");
        settle(received, Disposition::Ack).await.unwrap();
    }
}

fn sorted(headers: &Headers) -> Vec<(String, Vec<u8>)> {
    let mut pairs: Vec<_> = headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    pairs.sort();
    pairs
}

/// Other languages can read text as text, and find the properties in their usual place.
#[tokio::test]
async fn a_message_is_readable_by_others() {
    let topic = unique("readable");
    let amqp = connect("").await.unwrap();
    amqp.declare(&topic).await.unwrap();
    let raw = raw().await;
    let channel = raw.create_channel().await.unwrap();
    let queue = channel.queue_declare("".into(), exclusive(), FieldTable::default()).await.unwrap();
    let bind = QueueBindOptions::default();
    channel
        .queue_bind(queue.name().clone(), topic.as_str().into(), "#".into(), bind, FieldTable::default())
        .await
        .unwrap();
    let mut message = outbound("payload");
    message.key = Some("customer-7".into());
    message.id = Some("id-1".to_owned());
    message.headers.append("traceparent", "00-…");
    message.headers.append("content-type", "text/plain");
    confirmed(amqp.enqueue(&topic, message)).await.unwrap();

    let got = channel.basic_get(queue.name().clone(), Default::default()).await.unwrap().unwrap();
    let properties = &got.properties;
    let table = properties.headers().as_ref().unwrap().inner();
    assert_eq!(table.get("traceparent"), Some(&AMQPValue::LongString("00-…".into())));
    assert_eq!(table.get("message-key"), Some(&AMQPValue::LongString("customer-7".into())));
    let texts = table.values().filter(|value| matches!(value, AMQPValue::LongString(_)));
    assert_eq!(texts.count(), table.len(), "there are readers of nothing but text: {table:?}");
    let Some(AMQPValue::LongString(milliseconds)) = table.get("timestamp_in_ms") else { panic!("{table:?}") };
    let milliseconds: u64 = milliseconds.to_string().parse().unwrap();
    assert_eq!(properties.timestamp().unwrap(), milliseconds / 1000);
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "text/plain");
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "id-1");
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    assert_eq!(got.routing_key.as_str(), "");
    assert_eq!(table.len(), 4, "with the number of the publish: {table:?}");
}

fn exclusive() -> QueueDeclareOptions {
    QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() }
}

#[tokio::test]
async fn the_key_is_the_routing_key_where_that_is_wanted() {
    let topic = unique("routing");
    let amqp = connect("?routing_key=key").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let mut message = outbound("routed");
    message.key = Some("eu.berlin".into());
    confirmed(amqp.enqueue(&topic, message.clone())).await.unwrap();
    let received = next(&mut source).await;
    assert_eq!(received.key, message.key);
    assert!(received.headers.is_empty(), "{:?}", received.headers);
    let mut attributes = Vec::new();
    received.handle.attributes(&mut |key, value| attributes.push((key, value)));
    assert_eq!(attributes.len(), 2);
    assert_eq!(attributes[0], ("messaging.rabbitmq.message.delivery_tag", 1.into()));
    assert_eq!(attributes[1], ("messaging.rabbitmq.destination.routing_key", "eu.berlin".into()));

    for key in [&b"\xff"[..], &[b'k'; 256]] {
        message.key = Some(bytes::Bytes::copy_from_slice(key));
        let error = confirmed(amqp.enqueue(&topic, message.clone())).await.unwrap_err();
        assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::InvalidMessage, PublishOutcome::NotSent));
    }
}

#[tokio::test]
async fn what_amqp_cannot_carry_is_refused_before_it_is_sent() {
    let topic = unique("refused");
    let amqp = connect("?max_payload=1000000").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let with = |name: &str, value: Vec<u8>| {
        let mut message = outbound("never");
        message.headers.append(name, value);
        message
    };
    let mut long_id = outbound("never");
    long_id.id = Some("i".repeat(256));
    let mut tombstone = outbound("never");
    tombstone.payload = None;
    let cases = [
        (with(&"n".repeat(256), vec![]), ErrorKind::InvalidMessage),
        (with("CC", b"x".to_vec()), ErrorKind::InvalidMessage),
        (with("BCC", b"x".to_vec()), ErrorKind::InvalidMessage),
        (with("big", vec![b'x'; 131_072]), ErrorKind::TooLarge),
        (long_id, ErrorKind::InvalidMessage),
        (tombstone, ErrorKind::Unsupported),
        (outbound(vec![0; 1_000_001]), ErrorKind::TooLarge),
    ];
    for (message, kind) in cases {
        let error = confirmed(amqp.enqueue(&topic, message)).await.unwrap_err();
        assert_eq!((error.kind(), error.publish_outcome()), (kind, PublishOutcome::NotSent), "{error}");
    }
    confirmed(amqp.enqueue(&topic, outbound("good"))).await.unwrap();
    assert_eq!(next_text(&mut source).await, "good");
    silent(&mut source).await;
}

/// A message that barely fits is read in full, also when the broker redelivers it with its own
/// header added.
#[tokio::test]
async fn headers_may_fill_a_frame() {
    let topic = unique("frame");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let message = |size: usize| {
        let mut message = outbound("full");
        message.key = Some("k".into());
        message.id = Some("id".to_owned());
        message.headers.append("content-type", "text/plain");
        message.headers.append("twice", "1");
        message.headers.append("twice", "2");
        message.headers.append("big", vec![b'x'; size]);
        message
    };
    let error = confirmed(amqp.enqueue(&topic, message(131_072))).await.unwrap_err();
    let size: usize = error.context().find(|(key, _)| *key == "size").unwrap().1.parse().unwrap();
    let fits = 131_072 - (size - 131_072);
    confirmed(amqp.enqueue(&topic, message(fits))).await.unwrap();
    for attempt in 1..4 {
        let received = next(&mut source).await;
        assert_eq!((received.attempt, received.unreadable_headers), (attempt, 0));
        assert_eq!(received.headers.get("big").unwrap().len(), fits);
        settle(received, Disposition::Retry(Duration::ZERO)).await.unwrap();
    }
    let error = confirmed(amqp.enqueue(&topic, message(fits + 1))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn without_a_subscriber_a_message_is_confirmed_or_rejected_as_told() {
    let topic = unique("unroutable");
    let dropping = connect("").await.unwrap();
    dropping.declare(&topic).await.unwrap();
    let receipt = confirmed(dropping.enqueue(&topic, outbound("lost"))).await.unwrap();
    assert!(receipt.confirmed && receipt.unroutable);

    let rejecting = connect("?unroutable=reject").await.unwrap();
    let error = confirmed(rejecting.enqueue(&topic, outbound("kept back"))).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Rejected, PublishOutcome::NotSent));
    let mut source = subscribe(&rejecting, group(&topic, "g")).await;
    assert!(!confirmed(rejecting.enqueue(&topic, outbound("taken"))).await.unwrap().unroutable);
    let taken = next(&mut source).await;
    assert_eq!(text(&taken), "taken");
    assert!(taken.headers.is_empty(), "{:?}", taken.headers);
}

#[tokio::test]
async fn messages_that_no_queue_takes_are_counted() {
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone()).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let broker = Traced::new(connect("").await.unwrap()).with_meter_provider(&provider);
    let (nobody, taken) = (unique("nobody"), unique("taken"));
    let _workers = broker.subscribe(group(&taken, "g")).await.unwrap();
    for topic in [&nobody, &taken, &nobody] {
        broker.publish(topic, Message::new("x")).await.unwrap();
    }
    broker.publish_batch(&nobody, vec![Message::new("x"), Message::new("y")]).await;
    provider.force_flush().unwrap();
    let exported = exporter.get_finished_metrics().unwrap().pop().unwrap();
    let metrics = exported.scope_metrics().flat_map(|scope| scope.metrics());
    let mut counted = Vec::new();
    for metric in metrics.filter(|metric| metric.name() == "traced_broker.publish.unroutable") {
        let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() else { panic!("{metric:?}") };
        for point in sum.data_points() {
            let topics = point.attributes().filter(|attribute| attribute.key.as_str() == "messaging.destination.name");
            counted.extend(topics.map(|topic| (topic.value.to_string(), point.value())));
        }
    }
    assert!(counted.iter().all(|(topic, _)| *topic == nobody.as_str()), "{counted:?}");
    assert_eq!(counted.iter().map(|(_, count)| count).sum::<u64>(), 4);
}

#[tokio::test]
async fn the_bound_of_unconfirmed_publishes_holds_and_is_freed() {
    let topic = unique("bound");
    let amqp = connect("?max_in_flight=10").await.unwrap();
    assert_eq!(amqp.identity().max_in_flight, 10);
    amqp.declare(&topic).await.unwrap();
    for _ in 0..3 {
        let (mut confirmations, mut busy) = (Vec::new(), 0);
        // Far more than are confirmed meanwhile.
        for _ in 0..500 {
            confirmations.push(amqp.enqueue(&topic, outbound("x")));
        }
        // Half of the confirmations are dropped; their places are freed all the same.
        for confirmation in confirmations.into_iter().step_by(2) {
            match confirmed(confirmation).await {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Busy, PublishOutcome::NotSent));
                    busy += 1;
                }
            }
        }
        assert!(busy > 0, "no more than ten are unconfirmed");
        tokio::time::sleep(SILENCE).await;
    }
}

/// The broker closes the channel on a publish to a missing exchange: other topics are affected
/// once, not with every publish.
#[tokio::test]
async fn a_topic_that_is_deleted_does_not_stop_the_others() {
    let (gone, good) = (unique("gone"), unique("good"));
    let creator = connect("").await.unwrap();
    for topic in [&gone, &good] {
        creator.declare(topic).await.unwrap();
    }
    let amqp = connect("?topology=check").await.unwrap();
    let channel = raw().await.create_channel().await.unwrap();
    channel.exchange_delete(gone.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    let [refused, beside] = [amqp.enqueue(&gone, outbound("x")), amqp.enqueue(&good, outbound("x"))];
    let error = confirmed(refused).await.unwrap_err();
    // The only message to this exchange is the one that was refused.
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::NotFound, PublishOutcome::NotSent));
    confirmed(beside).await.unwrap();
    until_published(&amqp, &good).await;
    for _ in 0..20 {
        let error = confirmed(amqp.enqueue(&gone, outbound("x"))).await.unwrap_err();
        assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::NotFound, PublishOutcome::NotSent));
        confirmed(amqp.enqueue(&good, outbound("x"))).await.unwrap();
    }
}

/// Publishes again until the channel is replaced.
async fn until_published(amqp: &impl Driver, topic: &traced_broker::Topic) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while let Err(error) = confirmed(amqp.enqueue(topic, outbound("x"))).await {
        assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::NotSent));
        assert!(std::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_topic_that_is_deleted_is_created_again() {
    let topic = unique("again");
    let amqp = connect("").await.unwrap();
    amqp.declare(&topic).await.unwrap();
    confirmed(amqp.enqueue(&topic, outbound("x"))).await.unwrap();
    let channel = raw().await.create_channel().await.unwrap();
    channel.exchange_delete(topic.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    confirmed(amqp.enqueue(&topic, outbound("x"))).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    until_published(&amqp, &topic).await;
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let kind = lapin::ExchangeKind::Topic;
    channel.exchange_declare(topic.as_str().into(), kind, passive, FieldTable::default()).await.unwrap();
}
