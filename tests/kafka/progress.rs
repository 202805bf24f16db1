//! The progress of a group beyond a message that stays unsettled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Driver, Inbound, Source};
use traced_broker::{Start, Subscription, Topic};

use crate::harness::*;
use crate::support::{Kind, Server};

const MESSAGES: u32 = 2000;

/// Consumes the numbers from 0, and holds the first one unsettled.
async fn hold_the_first(kafka: &Kafka, topic: &Topic) -> (Source, Inbound) {
    publish_some(kafka, topic, 0..MESSAGES).await;
    let mut source = subscribe(kafka, topic, topic).await;
    let first = next(&mut source).await;
    assert_eq!(drain(&mut source, MESSAGES as usize - 1).await, (1..MESSAGES).collect::<Vec<_>>());
    (source, first)
}

async fn publish_some(kafka: &Kafka, topic: &Topic, numbers: std::ops::Range<u32>) {
    for begin in numbers.clone().step_by(500) {
        publish_numbers(kafka, topic, begin..numbers.end.min(begin + 500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_behind_an_unsettled_message_does_not_come_again() {
    let url = url_with("partitions=1");
    let kafka = connect(&url).await.unwrap();
    let topic = topic(&kafka, "held").await;
    let (source, first) = hold_the_first(&kafka, &topic).await;
    first.handle.failed(2);
    kafka.close().await.unwrap();
    drop((source, first));
    assert_eq!(committed(&topic, &topic, 1), [Some(0)]);

    // Twice: the second time, its own progress is that of the first.
    for attempt in [3, 4] {
        let kafka = connect(&url).await.unwrap();
        let mut source = subscribe(&kafka, &topic, &topic).await;
        let first = next(&mut source).await;
        assert_eq!((number(&first), first.attempt), (0, attempt));
        first.handle.failed(attempt);
        assert!(is_quiet(&mut source).await);
        kafka.close().await.unwrap();
    }
    let kafka = connect(&url).await.unwrap();
    let mut source = subscribe(&kafka, &topic, &topic).await;
    publish_numbers(&kafka, &topic, MESSAGES..MESSAGES + 2).await;
    assert_eq!(drain(&mut source, 3).await, [0, MESSAGES, MESSAGES + 1]);
    kafka.close().await.unwrap();
    assert_eq!(committed(&topic, &topic, 1), [Some(i64::from(MESSAGES) + 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_moved_repeats_everything() {
    let url = url_with("partitions=1");
    let kafka = connect(&url).await.unwrap();
    let topic = topic(&kafka, "moved").await;
    let (source, first) = hold_the_first(&kafka, &topic).await;
    kafka.close().await.unwrap();
    drop((source, first));
    let kafka = connect(&url).await.unwrap();
    kafka.reposition(&Subscription::new(&*topic).group(&*topic), Start::Earliest).await.unwrap();
    let mut source = subscribe(&kafka, &topic, &topic).await;
    assert_eq!(drain(&mut source, MESSAGES as usize).await, (0..MESSAGES).collect::<Vec<_>>());
    kafka.close().await.unwrap();
}

/// The progress is committed at intervals, although the position does not move, so that it outlives
/// a lost session and a crash.
#[tokio::test(flavor = "multi_thread")]
async fn progress_is_committed_while_the_position_stands_still() {
    let server = spawn_blocking(|| Arc::new(Server::start(Kind::Kafka))).await.unwrap();
    let servers = server.url().trim_start_matches("kafka://").to_owned();
    let builder = Kafka::builder(&servers).partitions(1).commit_interval(Duration::from_millis(50));
    let kafka = builder.property("session.timeout.ms", "6000").connect().await.unwrap();
    let topic = topic(&kafka, "standing").await;
    let (mut source, first) = hold_the_first(&kafka, &topic).await;
    // Position 0; one open assignment, which reached 2000; no attempts; no trials; 1999 settled
    // messages at distance 1.
    wait_for_metadata(&servers, &topic, "traced-broker:2:A.Bw-B...Bv-B").await;
    let paused = Arc::clone(&server);
    spawn_blocking(move || paused.pause()).await.unwrap();
    timeout(LONG, first.tenure.over()).await.expect("the session never ends");
    let resumed = Arc::clone(&server);
    spawn_blocking(move || resumed.resume()).await.unwrap();
    assert_eq!(number(&next(&mut source).await), 0);
    assert!(is_quiet(&mut source).await);
    kafka.close().await.unwrap();
}

async fn wait_for_metadata(servers: &str, topic: &Topic, expected: &str) {
    let deadline = Instant::now() + LONG;
    loop {
        let committed = committed_at(servers, topic, topic, 1);
        let metadata = committed.elements()[0].metadata().to_owned();
        if metadata == expected {
            return;
        }
        assert!(Instant::now() < deadline, "it is {metadata:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A broker that keeps little metadata: positions are committed without, and fetching from a
/// partition waits once too much of it would come again.
#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_progress_fetching_waits_for_the_oldest_message() {
    let small = vec![("KAFKA_PROPERTIES", "offset.metadata.max.bytes=4".to_owned())];
    let server = spawn_blocking(|| Server::start_at(Kind::Kafka, Server::free_port(Kind::Kafka), small)).await.unwrap();
    let url = format!("{}?partitions=1&commit_interval=50", server.url());
    let kafka = connect(&url).await.unwrap();
    let topic = topic(&kafka, "small").await;
    let subscription = Subscription::new(&*topic).group(&*topic).prefetch(50);
    let mut source = kafka.subscribe(&subscription).await.unwrap();
    publish_numbers(&kafka, &topic, 0..100).await;
    let first = next(&mut source).await;
    assert_eq!(drain(&mut source, 99).await, (1..100).collect::<Vec<_>>());
    wait_for_metadata(&servers_of(&server), &topic, "").await;
    let mut published = 100;
    // The positions are committed again and again until the limit is known, so that it takes a
    // while.
    let deadline = Instant::now() + LONG;
    loop {
        publish_numbers(&kafka, &topic, published..published + 100).await;
        published += 100;
        let received = timeout(Duration::from_secs(2), drain(&mut source, 100)).await;
        if received.is_err() {
            break;
        }
        assert!(Instant::now() < deadline, "{published} messages ahead, and no end");
        sleep(Duration::from_millis(100)).await;
    }
    assert!(is_quiet(&mut source).await);
    ack(first).await;
    publish_numbers(&kafka, &topic, published..published + 1).await;
    let mut last = 0;
    while last != published {
        let inbound = next(&mut source).await;
        last = number(&inbound);
        ack(inbound).await;
    }
    kafka.close().await.unwrap();
    let committed = committed_at(&servers_of(&server), &topic, &topic, 1);
    assert_eq!(committed.elements()[0].offset(), rdkafka::Offset::Offset(i64::from(published) + 1));
}

fn servers_of(server: &Server) -> String {
    server.url().trim_start_matches("kafka://").to_owned()
}
