//! Publishing, subscribing, order, groups, bounds.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use traced_broker::{ErrorKind, Message, PublishOutcome, Start, Subscription, TracedBroker};

use super::World;
use super::world::{PATIENCE, drain, next, nothing_comes, text, within};

pub(crate) async fn confirms_and_delivers_exactly_what_was_sent(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    let payload: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let message = Message::new(payload.clone())
        .key("customer-7")
        .id("order-1")
        .header("content-type", "application/octet-stream")
        .header("tenant", "acme")
        .header("x-repeated", "one")
        .header("x-repeated", "two, with a comma")
        .header("x-text", "größer als – 100 €");
    let receipt = broker.publish(&world.topic, message).await.unwrap();
    assert_eq!(receipt.outcome(), PublishOutcome::Confirmed);

    let delivery = next(&mut deliveries).await;
    let message = delivery.message();
    assert_eq!(message.payload(), &payload, "payload");
    assert_eq!(message.key().map(|key| &key[..]), Some(&b"customer-7"[..]), "key");
    assert_eq!(message.id(), Some("order-1"), "id");
    assert_eq!(message.attempt(), 1);
    assert!(!message.is_tombstone());
    assert_eq!(message.headers().get_str("content-type"), Some("application/octet-stream"));
    assert_eq!(message.headers().get_str("tenant"), Some("acme"));
    assert_eq!(message.headers().get_str("x-text"), Some("größer als – 100 €"));
    let repeated: Vec<String> = message.headers().get_all("x-repeated").map(text).collect();
    assert_eq!(repeated, ["one", "two, with a comma"], "repeated header");
    assert_eq!(message.headers().get_all("traceparent").count(), 1, "one traceparent");
    assert!(message.time_in_queue().expect("a timestamp") < PATIENCE);
    delivery.ack().await.unwrap();
    broker.close().await.unwrap();
}

pub(crate) async fn keeps_the_callers_order_with_many_in_flight(world: &World) {
    const COUNT: usize = 3_000;
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g").prefetch(500)).await.unwrap();
    let mut publishes: FuturesOrdered<_> =
        (0..COUNT).map(|number| broker.publish(&world.topic, Message::new(number.to_string()).key("one"))).collect();
    let consumer = tokio::spawn(async move { drain(&mut deliveries, COUNT).await });
    while let Some(result) = publishes.next().await {
        result.unwrap();
    }
    let received = within("all messages", consumer).await.unwrap();
    let expected: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
    assert!(received == expected, "the order of publishing: {:?}…", &received[..20]);
    drop(publishes);
    broker.close().await.unwrap();
}

pub(crate) async fn shares_within_a_group_and_copies_to_each_group(world: &World) {
    const COUNT: usize = 200;
    let broker = world.broker().await;
    let second = world.broker().await;
    let mut one = broker.subscribe(world.group("shared").prefetch(10)).await.unwrap();
    let mut two = second.subscribe(world.group("shared").prefetch(10)).await.unwrap();
    let mut other = broker.subscribe(world.group("other")).await.unwrap();
    for number in 0..COUNT {
        let message = Message::new(number.to_string()).key(number.to_string());
        broker.publish(&world.topic, message).await.unwrap();
    }
    let expected: BTreeSet<String> = (0..COUNT).map(|number| number.to_string()).collect();
    let mut seen = Vec::new();
    within("the shared messages", async {
        while seen.len() < COUNT {
            let delivery = tokio::select! {
                delivery = one.next() => delivery,
                delivery = two.next() => delivery,
            };
            let Ok(delivery) = delivery.expect("the stream goes on") else { continue };
            seen.push(text(delivery.message().payload()));
            delivery.ack().await.unwrap();
        }
    })
    .await;
    assert_eq!(seen.len(), expected.len());
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected, "each message once in the group");
    assert_eq!(drain(&mut other, COUNT).await.into_iter().collect::<BTreeSet<_>>(), expected, "the other group");
    nothing_comes(&mut other).await;
    broker.close().await.unwrap();
    second.close().await.unwrap();
}

pub(crate) async fn gives_a_new_group_the_backlog(world: &World) {
    let broker = world.broker().await;
    if !broker.capabilities().backlog {
        return a_new_group_starts_where_it_is_made(world).await;
    }
    for number in 0..20 {
        broker.publish(&world.topic, Message::new(number.to_string()).key("one")).await.unwrap();
    }
    let mut early = broker.subscribe(world.group("early")).await.unwrap();
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(drain(&mut early, 20).await, expected);
    let mut late = broker.subscribe(world.group("late").start(Start::Latest)).await.unwrap();
    broker.publish(&world.topic, Message::new("after")).await.unwrap();
    assert_eq!(drain(&mut late, 1).await, ["after"], "a group that asks for the latest");
    broker.close().await.unwrap();
}

async fn a_new_group_starts_where_it_is_made(world: &World) {
    let broker = world.broker().await;
    let mut first = broker.subscribe(world.group("first")).await.unwrap();
    broker.publish(&world.topic, Message::new("before")).await.unwrap();
    assert_eq!(drain(&mut first, 1).await, ["before"]);
    let mut group = broker.subscribe(world.group("new")).await.unwrap();
    broker.publish(&world.topic, Message::new("after")).await.unwrap();
    assert_eq!(drain(&mut group, 1).await, ["after"]);
    broker.close().await.unwrap();
}

pub(crate) async fn starts_an_ephemeral_reader_at_the_latest(world: &World) {
    let broker = world.broker().await;
    let mut keeper = broker.subscribe(world.group("keeper")).await.unwrap();
    broker.publish(&world.topic, Message::new("before").key("one")).await.unwrap();
    let mut one = broker.subscribe(Subscription::new(&world.topic)).await.unwrap();
    let mut two = broker.subscribe(Subscription::new(&world.topic)).await.unwrap();
    broker.publish(&world.topic, Message::new("after").key("one")).await.unwrap();
    assert_eq!(drain(&mut one, 1).await, ["after"]);
    assert_eq!(drain(&mut two, 1).await, ["after"], "each reader gets its own copy");
    assert_eq!(drain(&mut keeper, 2).await, ["before", "after"]);
    broker.close().await.unwrap();
}

pub(crate) async fn bounds_what_is_unsettled(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g").prefetch(5)).await.unwrap();
    for number in 0..20 {
        broker.publish(&world.topic, Message::new(number.to_string()).key("one")).await.unwrap();
    }
    let mut unsettled = Vec::new();
    for _ in 0..5 {
        unsettled.push(next(&mut deliveries).await);
    }
    nothing_comes(&mut deliveries).await;
    for delivery in unsettled {
        delivery.ack().await.unwrap();
    }
    assert_eq!(drain(&mut deliveries, 15).await.len(), 15, "goes on once there is room");
    broker.close().await.unwrap();
}

pub(crate) async fn carries_a_tombstone_or_says_unsupported(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    let result = broker.publish(&world.topic, Message::tombstone().key("gone")).await;
    if broker.capabilities().tombstones {
        result.unwrap();
        let delivery = next(&mut deliveries).await;
        assert!(delivery.message().is_tombstone());
        delivery.ack().await.unwrap();
    } else {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(error.publish_outcome(), PublishOutcome::NotSent);
    }
    broker.publish(&world.topic, Message::new("").key("empty")).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert!(!delivery.message().is_tombstone(), "an empty payload is a payload");
    assert!(delivery.message().payload().is_empty());
    delivery.ack().await.unwrap();
    broker.close().await.unwrap();
}

pub(crate) async fn refuses_bad_names_and_bounds(world: &World) {
    let broker = world.broker().await;
    for name in ["", "a b", "orders/eu", "größe", "..", &"x".repeat(250)] {
        let error = broker.publish(name, Message::new("x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name}: {error}");
        assert_eq!(error.publish_outcome(), PublishOutcome::NotSent);
        let error = broker.subscribe(Subscription::new(name)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name}: {error}");
    }
    let subscriptions = [
        world.group("a b"),
        world.group("g").prefetch(0),
        world.group("g").prefetch(70_000),
        world.group("g").dead_letter(&world.topic),
        world.group("g").dead_letter(""),
    ];
    for subscription in subscriptions {
        let error = broker.subscribe(subscription).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
    broker.close().await.unwrap();
}

pub(crate) async fn closes_once_and_for_all(world: &World) {
    let broker = world.broker().await;
    let mut deliveries = broker.subscribe(world.group("g")).await.unwrap();
    broker.ping().await.unwrap();
    let publishes: Vec<_> = (0..200).map(|n| broker.publish(&world.topic, Message::new(format!("{n}")))).collect();
    let (results, ()) = tokio::join!(futures_util::future::join_all(publishes), async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        broker.close().await.unwrap();
    });
    for result in &results {
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            assert_eq!(error.publish_outcome(), PublishOutcome::NotSent);
        }
    }
    within("the stream ends", async { while deliveries.next().await.is_some() {} }).await;
    broker.close().await.unwrap();
    let error = broker.publish(&world.topic, Message::new("late")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert_eq!(broker.subscribe(world.group("g")).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(broker.ping().await.unwrap_err().kind(), ErrorKind::Closed);

    let again = world.broker().await;
    let mut deliveries = again.subscribe(world.group("g")).await.unwrap();
    let confirmed = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(drain(&mut deliveries, confirmed).await.len(), confirmed, "what was confirmed is there");
    again.close().await.unwrap();
}

/// The README's table of what each broker can do, column of this broker.
pub(crate) async fn is_described_in_the_readme(world: &World) {
    let broker = world.broker().await;
    let readme = include_str!("../../README.md");
    let rows: Vec<Vec<&str>> = readme
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let column = if world.url.contains("mode=core") { "core NATS" } else { readme_name(broker.system()) };
    let header = rows.iter().position(|row| row.get(1) == Some(&"memory")).expect("the table");
    let index = rows[header].iter().position(|name| *name == column).expect("a column for this broker");
    let told: Vec<(&str, &str)> = rows[header + 2..].iter().take(10).map(|row| (row[0], row[index])).collect();
    assert_eq!(told, broker.capabilities().in_words(), "the README's column {column}");
    broker.close().await.unwrap();
}

fn readme_name(system: &str) -> &'static str {
    match system {
        "memory" => "memory",
        "kafka" => "Kafka",
        "rabbitmq" => "RabbitMQ",
        "nats" => "JetStream",
        "redis" => "Redis Streams",
        other => panic!("the README has no column for {other}"),
    }
}
