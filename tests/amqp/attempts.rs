//! Attempts are retries that were asked for; deliveries are hand-outs by the server.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use traced_broker::driver::{Disposition, Driver, DriverExt, Inbound};
use traced_broker::{Subscription, Topic};

use crate::driving::*;

const NOW: Disposition = Disposition::Retry(Duration::ZERO);

fn after(milliseconds: u64) -> Disposition {
    Disposition::Retry(Duration::from_millis(milliseconds))
}

fn counts(inbound: &Inbound) -> (u32, Option<u32>) {
    (inbound.attempt, inbound.deliveries)
}

/// Declares the exchange and a queue of the group as an operator would, with these arguments.
pub(crate) async fn make_queue(topic: &Topic, group: &str, arguments: FieldTable) {
    let channel = raw().await.create_channel().await.unwrap();
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = lapin::ExchangeKind::Topic;
    channel.exchange_declare(topic.as_str().into(), kind, durable, FieldTable::default()).await.unwrap();
    let queue = format!("{topic}.{group}");
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), durable, arguments).await.unwrap();
    let bound = channel.queue_bind(
        queue.into(),
        topic.as_str().into(),
        "#".into(),
        lapin::options::QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.unwrap();
}

#[tokio::test]
async fn giving_back_costs_no_attempt() {
    let topic = unique("given-back-uncounted");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("untouched"))).await.unwrap();
    for delivery in 1..=6 {
        let inbound = next(&mut source).await;
        assert_eq!(counts(&inbound), (1, Some(delivery)));
        settle(inbound, Disposition::GiveBack).await.unwrap();
    }
    assert_eq!(next_text(&mut source).await, "untouched");
    silent(&mut source).await;
}

/// Messages that were fetched ahead, or handed out and not settled, come again as they were.
#[tokio::test]
async fn deploys_cost_no_attempt() {
    let topic = unique("deploys");
    make_group(&topic, "g").await;
    let amqp = connect("").await.unwrap();
    for n in 0..10 {
        confirmed(amqp.enqueue(&topic, outbound(n.to_string()))).await.unwrap();
    }
    for _ in 0..4 {
        let deployed = connect("").await.unwrap();
        let mut source = subscribe(&deployed, group(&topic, "g")).await;
        let held = next(&mut source).await;
        assert_eq!(held.attempt, 1, "{held:?}");
        drop(source);
        deployed.close().await.unwrap();
    }
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    for _ in 0..10 {
        let inbound = next(&mut source).await;
        assert_eq!(inbound.attempt, 1, "{inbound:?}");
        assert!(inbound.deliveries.is_some_and(|deliveries| deliveries > 4), "{inbound:?}");
        settle(inbound, Disposition::Ack).await.unwrap();
    }
}

#[tokio::test]
async fn retries_of_both_kinds_are_counted_on_over_give_backs_and_restarts() {
    let topic = unique("both-counted");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("again"))).await.unwrap();
    let steps = [NOW, Disposition::GiveBack, after(30), NOW, Disposition::GiveBack, Disposition::GiveBack, after(1)];
    let mut attempt = 1;
    for (delivery, step) in (1..).zip(steps) {
        let inbound = next(&mut source).await;
        assert_eq!(counts(&inbound), (attempt, Some(delivery)), "before {step:?}");
        settle(inbound, step).await.unwrap();
        attempt += u32::from(matches!(step, Disposition::Retry(_)));
    }
    let held = next(&mut source).await;
    assert_eq!(counts(&held), (attempt, Some(8)));
    amqp.close().await.unwrap();
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let inbound = next(&mut source).await;
    assert_eq!(counts(&inbound), (attempt, Some(9)));
    settle(inbound, Disposition::Ack).await.unwrap();
    silent(&mut source).await;
}

/// Attempts that failed while the message stayed in hand are written when it is given back.
#[tokio::test]
async fn attempts_that_failed_in_hand_are_kept_when_the_message_is_given_back() {
    let topic = unique("failed-in-hand");
    let amqp = connect("?consumer_timeout=3000").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("again"))).await.unwrap();
    let inbound = next(&mut source).await;
    inbound.handle.failed(2);
    inbound.handle.failed(3);
    settle(inbound, Disposition::GiveBack).await.unwrap();
    let held = next(&mut source).await;
    assert_eq!(counts(&held), (4, Some(2)));
    // The server's time limit takes it away.
    held.handle.failed(4);
    let back = next(&mut source).await;
    assert!(held.tenure.is_over());
    assert_eq!(counts(&back), (5, Some(3)));
    settle(back, NOW).await.unwrap();
    let last = next(&mut source).await;
    assert_eq!(counts(&last), (6, Some(4)));
    settle(last, Disposition::Ack).await.unwrap();
    silent(&mut source).await;
}

/// Headers of this adapter count on copies by its own user in the group's own place only.
#[tokio::test]
async fn counts_that_a_publisher_writes_are_not_believed() {
    let topic = unique("forged-counts");
    let queue = format!("{topic}.g");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let channel = raw().await.create_channel().await.unwrap();
    let mut headers = FieldTable::default();
    for name in ["prior-attempts", "prior-deliveries", "x-delivery-count"] {
        headers.insert(name.into(), AMQPValue::LongLongInt(1_000_000));
    }
    headers.insert("delayed-for".into(), AMQPValue::LongString(format!("queue:{queue}").into()));
    headers.insert("retry-routing-key".into(), AMQPValue::LongString("elsewhere".into()));
    let properties = BasicProperties::default().with_headers(headers);
    for (exchange, key) in [(topic.as_str(), "some.key"), ("", queue.as_str())] {
        let options = BasicPublishOptions::default();
        channel.basic_publish(exchange.into(), key.into(), options, b"x", properties.clone()).await.unwrap();
        let inbound = next(&mut source).await;
        assert_eq!(counts(&inbound), (1, Some(1)), "by the exchange {exchange:?}");
        settle(inbound, NOW).await.unwrap();
        let inbound = next(&mut source).await;
        assert_eq!(counts(&inbound), (2, Some(2)), "by the exchange {exchange:?}");
        let names: Vec<&str> = inbound.headers.iter().map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| *name == "amqp-routing-key"), "{inbound:?}");
        settle(inbound, Disposition::Ack).await.unwrap();
    }
}

/// An immediate retry needs nothing but the queue, and keeps the routing key, also over give-backs.
#[tokio::test]
async fn a_retry_keeps_the_routing_key() {
    let topic = unique("routed-retry");
    let amqp = connect("?routing_key=key").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let mut message = outbound("again");
    message.key = Some("eu.berlin".into());
    confirmed(amqp.enqueue(&topic, message)).await.unwrap();
    for (attempt, step) in [(1, NOW), (2, NOW), (3, after(20)), (4, NOW), (5, Disposition::Ack)] {
        let inbound = next(&mut source).await;
        assert_eq!((inbound.attempt, inbound.key.as_deref()), (attempt, Some(&b"eu.berlin"[..])));
        let mut routed = None;
        inbound.handle.attributes(&mut |name, value| {
            if name.ends_with("routing_key") {
                routed = Some(format!("{value:?}"));
            }
        });
        assert!(routed.as_deref().is_some_and(|key| key.contains("eu.berlin")), "{routed:?}");
        settle(inbound, step).await.unwrap();
    }
    silent(&mut source).await;
}

#[tokio::test]
async fn a_classic_queue_of_an_operator_counts_retries_too() {
    let topic = unique("classic");
    make_queue(&topic, "g", FieldTable::default()).await;
    let amqp = connect("?topology=check").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("again"))).await.unwrap();
    for attempt in 1..=4 {
        let inbound = next(&mut source).await;
        assert_eq!(counts(&inbound), (attempt, Some(attempt)));
        settle(inbound, NOW).await.unwrap();
    }
    settle(next(&mut source).await, Disposition::GiveBack).await.unwrap();
    let inbound = next(&mut source).await;
    assert_eq!(counts(&inbound), (5, None), "a classic queue does not count");
    settle(inbound, Disposition::Ack).await.unwrap();
}

#[tokio::test]
async fn a_reader_without_a_group_counts_its_retries() {
    let topic = unique("reader-counts");
    let amqp = connect("").await.unwrap();
    let mut reader = subscribe(&amqp, Subscription::new(topic.as_str())).await;
    confirmed(amqp.enqueue(&topic, outbound("again"))).await.unwrap();
    let steps = [(1, Disposition::GiveBack), (1, NOW), (2, NOW), (3, after(100)), (4, Disposition::GiveBack)];
    for (attempt, step) in steps {
        let inbound = next(&mut reader).await;
        assert_eq!((text(&inbound), counts(&inbound)), ("again".to_owned(), (attempt, None)));
        settle(inbound, step).await.unwrap();
    }
    settle(next(&mut reader).await, Disposition::Ack).await.unwrap();
    silent(&mut reader).await;
}
