//! Partitions that are many, without a leader, added later, or cut off behind the position.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use tokio::time::timeout;
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Driver, DriverExt, Inbound, Source};
use traced_broker::{ErrorKind, Start, Subscription, Topic};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn one_partition_without_a_leader_stops_no_other() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("leaderless", 2, 1).unwrap();
    cluster.partition_leader("leaderless", 0, None).unwrap();
    let kafka = connect(&format!("kafka://{}?connect_timeout=3000", cluster.bootstrap_servers())).await.unwrap();
    let topic = Topic::new("leaderless").unwrap();
    kafka.declare(&topic).await.unwrap();
    // A key of the second partition.
    let receipt = kafka.enqueue(&topic, keyed("abc", "1")).await.unwrap();
    assert_eq!(receipt.partition, Some(1));
    let mut source = subscribe(&kafka, &topic, "group").await;
    assert_eq!(number(&next(&mut source).await), 1);
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_of_many_partitions_is_found_in_a_few_requests() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("many", 600, 1).unwrap();
    // One request after the other would take 24 seconds.
    cluster.broker_round_trip_time(1, Duration::from_millis(40)).unwrap();
    let kafka = connect(&format!("kafka://{}", cluster.bootstrap_servers())).await.unwrap();
    let topic = Topic::new("many").unwrap();
    kafka.enqueue(&topic, keyed("abc", "0")).await.unwrap();
    let latest = Subscription::new(&*topic).start(Start::Latest);
    let mut reader = kafka.subscribe(&latest).await.unwrap();
    let mut group = kafka.subscribe(&latest.clone().group("many")).await.unwrap();
    let since = Start::Offset(1);
    let mut offset = kafka.subscribe(&Subscription::new(&*topic).start(since)).await.unwrap();
    kafka.enqueue(&topic, keyed("abc", "1")).await.unwrap();
    for source in [&mut reader, &mut group, &mut offset] {
        assert_eq!(number(&next(source).await), 1);
    }
    kafka.close().await.unwrap();
}

/// Returns a key of each of two partitions.
async fn keys_of_two(kafka: &Kafka) -> [String; 2] {
    let (scratch, mut keys) = (topic(kafka, "keys").await, [const { String::new() }; 2]);
    for key in (0..).map(|number: u32| number.to_string()) {
        let receipt = kafka.enqueue(&scratch, keyed(&key, "")).await.unwrap();
        keys[receipt.partition.unwrap() as usize] = key;
        if keys.iter().all(|key| !key.is_empty()) {
            break;
        }
    }
    keys
}

async fn publish_to(kafka: &Kafka, topic: &Topic, key: &str, count: u32) {
    let sent: Vec<_> = (0..count).map(|number| kafka.enqueue(topic, keyed(key, number.to_string()))).collect();
    for confirmation in sent {
        confirmation.await.unwrap();
    }
}

/// Settles so many messages of the second partition, and keeps those of the first one.
async fn settle_second(source: &mut Source, in_hand: &mut Vec<Inbound>, mut count: u32) {
    while count > 0 {
        let inbound = next(source).await;
        if inbound.partition == Some(0) {
            in_hand.push(inbound);
        } else {
            count -= 1;
            ack(inbound).await;
        }
    }
}

/// A partition whose messages are not settled takes up a part of the prefetch, and others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_stops_holds_up_no_other() {
    let kafka = connect(&url_with("partitions=2")).await.unwrap();
    let (topic, keys) = (topic(&kafka, "stopped").await, keys_of_two(&kafka).await);
    publish_to(&kafka, &topic, &keys[0], 100).await;
    publish_to(&kafka, &topic, &keys[1], 5).await;
    let subscription = Subscription::new(&*topic).group(&*topic).prefetch(16);
    let mut source = kafka.subscribe(&subscription).await.unwrap();
    let mut in_hand = Vec::new();
    settle_second(&mut source, &mut in_hand, 5).await;
    while !is_quiet_or(&mut source, &mut in_hand).await {}
    assert_eq!(in_hand.len(), 12, "messages in hand");
    publish_to(&kafka, &topic, &keys[1], 500).await;
    let begun = Instant::now();
    settle_second(&mut source, &mut in_hand, 500).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "500 messages took {:?}", begun.elapsed());
    assert_eq!(in_hand.len(), 12, "messages in hand");
    for inbound in in_hand {
        ack(inbound).await;
    }
    drain(&mut source, 88).await;
    kafka.close().await.unwrap();
}

/// Keeps the next message. Returns `true` if none arrives for a while.
async fn is_quiet_or(source: &mut Source, kept: &mut Vec<Inbound>) -> bool {
    match timeout(2 * SHORT, std::future::poll_fn(|cx| source.poll_next(cx))).await {
        Ok(item) => kept.push(item.unwrap().unwrap()),
        Err(_) => return true,
    }
    false
}

/// A partition that is alone with its messages may use the whole prefetch.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_uses_the_prefetch_that_no_other_needs() {
    let kafka = connect(&url_with("partitions=2")).await.unwrap();
    let (topic, keys) = (topic(&kafka, "alone").await, keys_of_two(&kafka).await);
    publish_to(&kafka, &topic, &keys[0], 100).await;
    let subscription = Subscription::new(&*topic).group(&*topic).prefetch(16);
    let mut source = kafka.subscribe(&subscription).await.unwrap();
    let mut in_hand = Vec::new();
    while !is_quiet_or(&mut source, &mut in_hand).await {}
    assert_eq!(in_hand.len(), 16, "messages in hand");
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_without_a_group_reads_partitions_that_are_added() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "added").await;
    publish_numbers(&kafka, &topic, 0..1).await;
    let mut reader = kafka.subscribe(&Subscription::new(&*topic).start(Start::Latest)).await.unwrap();
    publish_numbers(&kafka, &topic, 1..2).await;
    assert_eq!(drain(&mut reader, 1).await, [1]);
    let admin: AdminClient<DefaultClientContext> = kafka.as_client().create().unwrap();
    admin.create_partitions(&[NewPartitions::new(&topic, 3)], &AdminOptions::new()).await.unwrap();
    // A producer that learns of them at once.
    let other = connect(&url_with("")).await.unwrap();
    let mut partitions = std::collections::BTreeSet::new();
    let mut published = 2_u32;
    while partitions.len() < 3 {
        let receipt = other.enqueue(&topic, keyed(&published.to_string(), published.to_string())).await.unwrap();
        partitions.extend(receipt.partition);
        published += 1;
    }
    let received = as_set(drain(&mut reader, published as usize - 2).await);
    assert_eq!(received, as_set(2..published));
    kafka.close().await.unwrap();
    other.close().await.unwrap();
}

/// Makes a group whose position was deleted: at 3, while the first message is 10.
async fn out_of_range(name: &str) -> Topic {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, name).await;
    publish_numbers(&kafka, &topic, 0..20).await;
    kafka.reposition(&Subscription::new(&*topic).group(&*topic), Start::Offset(3)).await.unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", servers()).create().unwrap();
    let mut before = rdkafka::TopicPartitionList::new();
    before.add_partition_offset(&topic, 0, rdkafka::Offset::Offset(10)).unwrap();
    admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
    kafka.close().await.unwrap();
    topic
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_chooses_where_a_position_that_is_gone_goes_on() {
    for (option, first) in [("", 10), ("offset_reset=earliest", 10), ("offset_reset=latest", 20)] {
        let topic = out_of_range("gone").await;
        let kafka = connect(&url_with(option)).await.unwrap();
        let mut source = subscribe(&kafka, &topic, &topic).await;
        if first == 20 {
            assert!(is_quiet(&mut source).await);
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        publish_numbers(&kafka, &topic, 20..21).await;
        assert_eq!(drain(&mut source, 21 - first).await, as_set(first as u32..21).into_iter().collect::<Vec<_>>());
        kafka.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_gone_can_be_an_error() {
    let topic = out_of_range("refused").await;
    let kafka = connect(&url_with("offset_reset=error")).await.unwrap();
    let mut source = subscribe(&kafka, &topic, &topic).await;
    let error = next_item(&mut source).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("offset_reset"), "{error}");
    kafka.close().await.unwrap();
}

/// The policy is for positions that are gone, and not for those that never were.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_group_begins_where_it_asks_to_whatever_the_policy() {
    for policy in ["latest", "error"] {
        let kafka = connect(&url_with(&format!("partitions=1&offset_reset={policy}"))).await.unwrap();
        let topic = topic(&kafka, "new").await;
        publish_numbers(&kafka, &topic, 0..5).await;
        let mut source = subscribe(&kafka, &topic, &topic).await;
        assert_eq!(drain(&mut source, 5).await, [0, 1, 2, 3, 4]);
        let admin: AdminClient<DefaultClientContext> = kafka.as_client().create().unwrap();
        admin.create_partitions(&[NewPartitions::new(&topic, 2)], &AdminOptions::new()).await.unwrap();
        let other = connect(&url_with("")).await.unwrap();
        while other.enqueue(&topic, keyed("abc", "5")).await.unwrap().partition != Some(1) {}
        let quick = rdkafka_quick(policy, &topic).await;
        assert!(quick, "{policy}: what came before the partition was assigned is lost");
        kafka.close().await.unwrap();
        other.close().await.unwrap();
    }
}

/// Subscribes again, as a member that learns of the new partition at once.
async fn rdkafka_quick(policy: &str, topic: &Topic) -> bool {
    let kafka = connect(&url_with(&format!("offset_reset={policy}"))).await.unwrap();
    let mut source = subscribe(&kafka, topic, topic).await;
    let received = timeout(LONG, async {
        loop {
            let inbound = next_item(&mut source).await.unwrap().unwrap();
            let is_it = inbound.partition == Some(1) && inbound.offset == Some(0);
            ack(inbound).await;
            if is_it {
                return;
            }
        }
    });
    let is_received = received.await.is_ok();
    kafka.close().await.unwrap();
    is_received
}
