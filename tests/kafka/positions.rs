//! Start positions of groups and readers, and moving the position of a group.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Driver, DriverExt, Source};
use traced_broker::{ErrorKind, Start, Subscription, Topic};

use crate::harness::*;

/// Creates a topic with one partition that holds the numbers from 0 to 19; the second half is
/// published after the returned time.
async fn halves(kafka: &Kafka) -> (Topic, SystemTime) {
    let topic = topic(kafka, "positions").await;
    publish_numbers(kafka, &topic, 0..10).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let between = SystemTime::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    publish_numbers(kafka, &topic, 10..20).await;
    (topic, between)
}

async fn one_partition() -> Kafka {
    connect(&url_with("partitions=1")).await.unwrap()
}

async fn group_at(kafka: &Kafka, topic: &Topic, start: Start) -> Source {
    kafka.subscribe(&Subscription::new(&**topic).group(unique("at")).start(start)).await.unwrap()
}

async fn reader_at(kafka: &Kafka, topic: &Topic, start: Start) -> Source {
    kafka.subscribe(&Subscription::new(&**topic).start(start)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_readers_begin_at_a_time() {
    let kafka = one_partition().await;
    let (topic, between) = halves(&kafka).await;
    let (before, after) = (UNIX_EPOCH - Duration::from_secs(5), SystemTime::now() + Duration::from_secs(3600));
    let mut sources = Vec::new();
    for (time, first) in [(between, 10), (before, 0), (after, 20)] {
        sources.push((group_at(&kafka, &topic, Start::Time(time)).await, first));
        sources.push((reader_at(&kafka, &topic, Start::Time(time)).await, first));
    }
    publish_numbers(&kafka, &topic, 20..22).await;
    for (source, first) in &mut sources {
        assert_eq!(drain(source, 22 - *first as usize).await, (*first..22).collect::<Vec<u32>>());
    }
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_readers_begin_at_an_offset_within_what_there_is() {
    let kafka = one_partition().await;
    let (topic, _) = halves(&kafka).await;
    forget_before(&topic, 4).await;
    let mut sources = Vec::new();
    for (offset, first) in [(12, 12), (2, 4), (0, 4), (19, 19), (20, 20), (1000, 20), (u64::MAX, 20)] {
        sources.push((group_at(&kafka, &topic, Start::Offset(offset)).await, first));
        sources.push((reader_at(&kafka, &topic, Start::Offset(offset)).await, first));
    }
    publish_numbers(&kafka, &topic, 20..22).await;
    for (source, first) in &mut sources {
        assert_eq!(drain(source, 22 - *first as usize).await, (*first..22).collect::<Vec<u32>>());
    }
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_partition_begins_at_its_own_offset() {
    let kafka = connect(&url_with("partitions=3")).await.unwrap();
    let topic = topic(&kafka, "each").await;
    // Ten messages of each key; a key may have a partition for itself or share one.
    for n in 0..30_u32 {
        kafka.enqueue(&topic, keyed(&(n % 3).to_string(), n.to_string())).await.unwrap();
    }
    let mut all = reader_at(&kafka, &topic, Start::Earliest).await;
    let mut expected = 0;
    for _ in 0..30 {
        expected += usize::from(next(&mut all).await.offset.unwrap() >= 7);
    }
    let mut source = group_at(&kafka, &topic, Start::Offset(7)).await;
    for _ in 0..expected {
        let inbound = next(&mut source).await;
        assert!(inbound.offset.unwrap() >= 7);
        ack(inbound).await;
    }
    assert!(is_quiet(&mut source).await);
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_members_can_be_moved_to_any_position() {
    let kafka = one_partition().await;
    let (topic, between) = halves(&kafka).await;
    let group = Subscription::new(&*topic).group(&*topic);
    let mut source = kafka.subscribe(&group).await.unwrap();
    drain(&mut source, 20).await;
    kafka.close().await.unwrap();

    let kafka = one_partition().await;
    let moves = [
        (Start::Offset(5), 5),
        (Start::Earliest, 0),
        (Start::Time(between), 10),
        (Start::Latest, 20),
        (Start::Offset(1000), 20),
    ];
    for (start, expected) in moves {
        kafka.reposition(&group, start).await.unwrap();
        assert_eq!(committed(&topic, &topic, 1), [Some(expected)], "{start:?}");
    }
    kafka.reposition(&group, Start::Offset(17)).await.unwrap();
    let mut source = kafka.subscribe(&group).await.unwrap();
    assert_eq!(drain(&mut source, 3).await, [17, 18, 19]);
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_members_is_not_moved() {
    let (kafka, other) = (one_partition().await, one_partition().await);
    let (topic, _) = halves(&kafka).await;
    let group = Subscription::new(&*topic).group(&*topic);
    let mut source = kafka.subscribe(&group).await.unwrap();
    assert_eq!(drain(&mut source, 6).await, [0, 1, 2, 3, 4, 5]);
    for connection in [&kafka, &other] {
        let error = connection.reposition(&group, Start::Earliest).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains("has members"), "{error}");
    }
    kafka.close().await.unwrap();
    assert_eq!(committed(&topic, &topic, 1), [Some(6)]);
    // The members are gone.
    other.reposition(&group, Start::Earliest).await.unwrap();
    assert_eq!(committed(&topic, &topic, 1), [Some(0)]);
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_makes_no_topic() {
    let kafka = kafka().await;
    let missing = unique("missing");
    let group = Subscription::new(&missing).group("g");
    for _ in 0..2 {
        let error = kafka.reposition(&group, Start::Earliest).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    kafka.close().await.unwrap();
    assert_eq!(kafka.reposition(&group, Start::Earliest).await.unwrap_err().kind(), ErrorKind::Closed);
}

/// Deletes the messages before that offset, as retention does.
async fn forget_before(topic: &Topic, offset: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", servers()).create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
}
