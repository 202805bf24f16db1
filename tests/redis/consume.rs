//! Consuming: groups, readers without a group, limits, and message metadata.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use traced_broker::capability::TimestampSource;
use traced_broker::driver::{AttributeValue, Disposition, Driver};
use traced_broker::{ErrorKind, Start, Subscription};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_and_groups_copy() {
    let (broker, topic) = (broker().await, topic("groups"));
    let narrow = |group| of_group(&topic, group).prefetch(4);
    let mut one = broker.subscribe(&narrow("shared")).await.unwrap();
    let mut two = broker.subscribe(&narrow("shared")).await.unwrap();
    let mut other = broker.subscribe(&narrow("other")).await.unwrap();
    publish_numbers(&broker, &topic, 0..100).await;
    let (mut shared, mut counts) = (BTreeSet::new(), [0, 0]);
    while shared.len() < 100 {
        for (member, count) in [&mut one, &mut two].into_iter().zip(&mut counts) {
            if let Some(message) = next_within(member, Duration::from_millis(50)).await {
                let message = message.unwrap();
                assert!(shared.insert(text(&message)), "handed out twice: {}", text(&message));
                ack(message).await.unwrap();
                *count += 1;
            }
        }
    }
    assert!(counts.iter().all(|count| *count > 10), "both take part: {counts:?}");
    assert_eq!(drain(&mut other, 100).await, numbers(0..100));
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_new_group_begins_where_it_says() {
    let (broker, topic) = (broker().await, topic("start"));
    publish_numbers(&broker, &topic, 0..10).await;
    let latest = of_group(&topic, "latest").start(Start::Latest);
    let mut late = broker.subscribe(&latest).await.unwrap();
    let mut reader = broker.subscribe(&Subscription::new(&*topic)).await.unwrap();
    let mut replay = broker.subscribe(&Subscription::new(&*topic).start(Start::Earliest)).await.unwrap();
    publish_numbers(&broker, &topic, 10..12).await;
    assert_eq!(drain(&mut late, 2).await, numbers(10..12));
    assert_eq!(drain(&mut reader, 2).await, numbers(10..12));
    assert_eq!(drain(&mut replay, 12).await, numbers(0..12));
    // An existing group continues at its position, whatever start the next member requests.
    publish_numbers(&broker, &topic, 12..13).await;
    drop(late);
    let mut again = broker.subscribe(&of_group(&topic, "latest")).await.unwrap();
    assert_eq!(drain(&mut again, 1).await, numbers(12..13));
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_misses_nothing_between_its_reads() {
    let (broker, topic) = (broker().await, topic("reader"));
    // A prefetch of one, so that there is a read, and a gap after it, for every message.
    let mut reader = broker.subscribe(&Subscription::new(&*topic).prefetch(1)).await.unwrap();
    let mut early = broker.subscribe(&Subscription::new(&*topic)).await.unwrap();
    let publishing = async {
        for number in 0..200 {
            publish(&broker, &topic, message(number.to_string())).await.unwrap();
        }
    };
    let ((), received) = tokio::join!(publishing, drain(&mut reader, 200));
    assert_eq!(received, numbers(0..200));
    assert_eq!(drain(&mut early, 200).await, numbers(0..200));
    assert!(Raw::new().await.run::<Vec<::redis::Value>>(&["XINFO", "GROUPS", &topic]).await.is_empty());
    broker.close().await.unwrap();
}

#[tokio::test]
async fn hands_out_no_more_than_the_prefetch() {
    let (broker, topic) = (broker().await, topic("prefetch"));
    publish_numbers(&broker, &topic, 0..50).await;
    let without = Subscription::new(&*topic).start(Start::Earliest);
    for subscription in [of_group(&topic, "g"), of_group(&topic, "once").at_most_once(), without] {
        let mut source = broker.subscribe(&subscription.prefetch(7)).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..7 {
            held.push(next(&mut source).await);
        }
        nothing_comes(&mut source).await;
        // Settling one delivery makes room for exactly one.
        ack(held.pop().unwrap()).await.unwrap();
        held.push(next(&mut source).await);
        nothing_comes(&mut source).await;
        held.clear();
    }
    let mut raw = Raw::new().await;
    assert!(raw.pending(&topic, "g").await.len() <= 7, "nor does it take more from the server");
    assert!(raw.pending(&topic, "once").await.is_empty(), "nothing is pending when it counts as handled");
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_message_says_what_it_is() {
    let (broker, topic) = (broker().await, topic("facts"));
    let mut source = subscribe(&broker, &topic, "g").await;
    let before = SystemTime::now() - Duration::from_secs(5);
    let receipt = publish(&broker, &topic, message("x")).await.unwrap();
    let received = next(&mut source).await;
    assert_eq!(received.attempt, 1);
    assert_eq!(received.unreadable_headers, 0);
    assert_eq!((received.partition, received.offset), (None, None));
    assert_eq!(received.id, receipt.id, "without an id of the sender's, the server's");
    let timestamp = received.timestamp.unwrap();
    assert_eq!(timestamp.source, TimestampSource::Broker);
    assert!(timestamp.time > before && timestamp.time < SystemTime::now() + Duration::from_secs(5));
    let mut attributes = Vec::new();
    received.handle.attributes(&mut |name, value| attributes.push((name, value)));
    let entry = AttributeValue::Text(receipt.id.unwrap().into());
    assert_eq!(attributes, [("messaging.redis.entry.id", entry)]);
    let (name, consumer) = &source.destination.attributes[0];
    assert_eq!(*name, "messaging.redis.consumer.name");
    let consumers = Raw::new().await.consumers(&topic, "g").await;
    assert_eq!(consumer, &AttributeValue::from(&*consumers[0]));
    broker.close().await.unwrap();
}

#[tokio::test]
async fn discards_and_does_not_redeliver_by_itself() {
    let (broker, topic) = (broker().await, topic("discard"));
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..2).await;
    next(&mut source).await.handle.settle(Disposition::Discard).await.unwrap();
    assert_eq!(Raw::new().await.pending(&topic, "g").await.len(), 1);
    let retry = Disposition::Retry(Duration::ZERO);
    let error = next(&mut source).await.handle.settle(retry).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    broker.close().await.unwrap();
}

#[tokio::test]
async fn only_checks_when_told_to() {
    let (lax, strict, topic) = (broker().await, broker_with("?topology=check").await, topic("strict"));
    let missing = |subscription: Subscription| {
        let strict = &strict;
        async move { strict.subscribe(&subscription).await.unwrap_err().kind() }
    };
    assert_eq!(missing(Subscription::new(&*topic)).await, ErrorKind::NotFound);
    assert_eq!(missing(of_group(&topic, "g")).await, ErrorKind::NotFound);
    publish(&lax, &topic, message("x")).await.unwrap();
    assert_eq!(missing(of_group(&topic, "g")).await, ErrorKind::NotFound);
    assert_eq!(missing(of_group(&topic, "g").at_most_once().start(Start::Latest)).await, ErrorKind::NotFound);
    assert!(
        Raw::new().await.run::<Vec<::redis::Value>>(&["XINFO", "GROUPS", &topic]).await.is_empty(),
        "none was made"
    );
    drop(subscribe(&lax, &topic, "g").await);
    let mut source = subscribe(&strict, &topic, "g").await;
    assert_eq!(drain(&mut source, 1).await, ["x"]);
    let _reader = strict.subscribe(&Subscription::new(&*topic)).await.unwrap();
}
