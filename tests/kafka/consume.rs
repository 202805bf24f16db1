//! Consuming: settling, the window, readers without a group, timestamps, attributes.

use std::time::{Duration, Instant, SystemTime};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use traced_broker::adapters::kafka::Kafka;
use traced_broker::capability::TimestampSource;
use traced_broker::driver::{AttributeValue, Disposition, Driver, DriverExt, Inbound, Outbound};
use traced_broker::{ErrorKind, Start, Subscription, Topic};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn ack_and_discard_settle_and_retry_is_not_kafkas() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "settle").await;
    publish_numbers(&kafka, &topic, 0..3).await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    next(&mut source).await.handle.settle(Disposition::Ack).await.unwrap();
    next(&mut source).await.handle.settle(Disposition::Discard).await.unwrap();
    let error = next(&mut source).await.handle.settle(Disposition::Retry(Duration::ZERO)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    kafka.close().await.unwrap();
    assert_eq!(committed(&topic, &topic, 1), [Some(2)], "the third is not settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_reach_the_broker_while_the_subscription_runs() {
    let kafka = connect(&url_with("partitions=1&commit_interval=50")).await.unwrap();
    let topic = topic(&kafka, "interval").await;
    publish_numbers(&kafka, &topic, 0..5).await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    drain(&mut source, 5).await;
    let deadline = Instant::now() + LONG;
    while committed(&topic, &topic, 1) != [Some(5)] {
        assert!(Instant::now() < deadline, "never committed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    kafka.close().await.unwrap();
}

/// A subscription polls for messages and for librdkafka's own events, and must not mistake an event
/// for the lack of a message.
#[tokio::test(flavor = "multi_thread")]
async fn messages_come_between_many_events_of_the_client() {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers()).set("debug", "all").set_log_level(RDKafkaLogLevel::Debug);
    let kafka = Kafka::from_client(client).connect().await.unwrap();
    let topic = topic(&kafka, "events").await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    for number in 0..20 {
        publish_numbers(&kafka, &topic, number..number + 1).await;
        assert_eq!(drain(&mut source, 1).await, [number]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_window_is_handed_out() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "window").await;
    publish_numbers(&kafka, &topic, 0..200).await;
    let mut source = kafka.subscribe(&Subscription::new(&*topic).group(&*topic).prefetch(7)).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..7 {
        held.push(next(&mut source).await);
    }
    // Longer than the adapter's patience: fetching is paused by now.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(is_quiet(&mut source).await, "an eighth was handed out");
    // Settling any of them makes room for exactly one.
    let mut numbers: Vec<u32> = held.iter().map(number).collect();
    ack(held.remove(3)).await;
    let eighth = next(&mut source).await;
    numbers.push(number(&eighth));
    held.push(eighth);
    assert!(is_quiet(&mut source).await);
    for inbound in held {
        ack(inbound).await;
    }
    numbers.extend(drain(&mut source, 192).await);
    assert_eq!(numbers.len(), 200, "pausing and resuming lost or repeated something");
    assert_eq!(as_set(numbers), as_set(0..200));
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_goes_on_without_waiting_for_timers() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "one").await;
    publish_numbers(&kafka, &topic, 0..300).await;
    let mut source = kafka.subscribe(&Subscription::new(&*topic).group(&*topic).prefetch(1)).await.unwrap();
    ack(next(&mut source).await).await;
    let begun = Instant::now();
    assert_eq!(drain(&mut source, 299).await, (1..300).collect::<Vec<_>>());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?} for 299", begun.elapsed());
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_without_a_group_gets_all_that_comes_after_it() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "reader").await;
    publish_numbers(&kafka, &topic, 0..10).await;
    let subscription = Subscription::new(&*topic);
    let (mut one, mut two) =
        (kafka.subscribe(&subscription).await.unwrap(), kafka.subscribe(&subscription).await.unwrap());
    let mut all = kafka.subscribe(&subscription.clone().start(Start::Earliest)).await.unwrap();
    publish_numbers(&kafka, &topic, 10..30).await;
    for reader in [&mut one, &mut two] {
        assert_eq!(as_set(drain(reader, 20).await), as_set(10..30));
        assert!(is_quiet(reader).await);
    }
    assert_eq!(as_set(drain(&mut all, 30).await), as_set(0..30));
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_once_is_committed_before_it_is_handed_out() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "most-once").await;
    publish_numbers(&kafka, &topic, 0..20).await;
    let subscription = Subscription::new(&*topic).group(&*topic).at_most_once().prefetch(4);
    let mut source = kafka.subscribe(&subscription).await.unwrap();
    for expected in 0..12 {
        let inbound = next(&mut source).await;
        assert_eq!(number(&inbound), expected);
        let position = committed(&topic, &topic, 1)[0].unwrap();
        assert!(position > i64::from(expected), "{expected} was handed out before it was committed: {position}");
        // The message is already settled, and settling it again succeeds.
        inbound.handle.settle(Disposition::Ack).await.unwrap();
    }
    drop(source);
    let position = committed(&topic, &topic, 1)[0].unwrap();
    assert!((12..=16).contains(&position), "the window is four: {position}");
    let mut source = kafka.subscribe(&subscription).await.unwrap();
    assert_eq!(i64::from(number(&next(&mut source).await)), position, "what was committed does not come again");
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timestamp_is_the_records_own() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let created = topic(&kafka, "created").await;
    let appended = Topic::new(&unique("appended")).unwrap();
    let admin: AdminClient<DefaultClientContext> = kafka.as_client().create().unwrap();
    let new = NewTopic::new(&appended, 1, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
    let results = admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    assert!(results[0].is_ok(), "{results:?}");
    for (topic, source) in [(created, TimestampSource::Producer), (appended, TimestampSource::Broker)] {
        let before = SystemTime::now() - Duration::from_millis(2);
        kafka.enqueue(&topic, outbound("x")).await.unwrap();
        let inbound = next(&mut subscribe(&kafka, &topic, &topic).await).await;
        let timestamp = inbound.timestamp.unwrap();
        assert_eq!(timestamp.source, source);
        assert!((before..=SystemTime::now()).contains(&timestamp.time), "{timestamp:?}");
    }
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_those_of_the_conventions() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "attributes").await;
    kafka.enqueue(&topic, keyed("k", "x")).await.unwrap();
    let key = Some(bytes::Bytes::from_static(&[0xff]));
    kafka.enqueue(&topic, Outbound { payload: None, key, ..Outbound::default() }).await.unwrap();
    let mut source = subscribe(&kafka, &topic, &topic).await;
    let offset = |offset| ("messaging.kafka.offset", AttributeValue::Integer(offset));
    assert_eq!(attributes(&next(&mut source).await), [offset(0), ("messaging.kafka.message.key", "k".into())]);
    assert_eq!(attributes(&next(&mut source).await), [offset(1), ("messaging.kafka.message.tombstone", true.into())]);
    kafka.close().await.unwrap();
}

fn attributes(inbound: &Inbound) -> Vec<(&'static str, AttributeValue)> {
    let mut all = Vec::new();
    inbound.handle.attributes(&mut |name, value| all.push((name, value)));
    all
}
