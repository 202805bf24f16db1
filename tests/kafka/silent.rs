//! Subscriptions that fell silent, and what waiting costs.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Driver, DriverExt, Source};
use traced_broker::{PublishOutcome, Start, Subscription, Topic};

use crate::harness::*;
use crate::wire::Behind;

/// Longer than the watch takes to notice, and than a session lasts.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects through the proxy, with a client that waits for answers for longer than the test lasts.
async fn patient(behind: &Behind) -> Kafka {
    let builder = Kafka::builder(behind.url.trim_start_matches("kafka://")).partitions(2);
    let builder =
        builder.property("socket.timeout.ms", "300000").property("socket.connection.setup.timeout.ms", "300000");
    builder.connect().await.unwrap()
}

/// Receives until each of these numbers was received. Returns the errors that were reported.
async fn receive_all(source: &mut Source, numbers: std::ops::Range<u32>) -> Vec<String> {
    let (mut missing, mut errors) = (as_set(numbers), Vec::new());
    while !missing.is_empty() {
        let item = timeout(PATIENCE, std::future::poll_fn(|cx| source.poll_next(cx))).await;
        match item.unwrap_or_else(|_| panic!("never delivered: {missing:?}")).expect("the stream ended") {
            Ok(inbound) => {
                missing.remove(&number(&inbound));
                drop(inbound.handle.settle(traced_broker::driver::Disposition::Ack).await);
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    errors
}

async fn falls_silent(group: Option<&str>) {
    let behind = Behind::start().await;
    let kafka = patient(&behind).await;
    let topic = topic(&kafka, "silent").await;
    let subscription = Subscription::new(&*topic).start(Start::Earliest);
    let subscription = group.map_or(subscription.clone(), |group| subscription.group(group));
    let mut source = kafka.subscribe(&subscription).await.unwrap();
    publish_numbers(&kafka, &topic, 0..10).await;
    receive_all(&mut source, 0..10).await;
    assert!(is_quiet(&mut source).await);
    behind.swallow_fetches();
    let other = patient(&behind).await;
    publish_some(&other, &topic, 10..30).await;
    let errors = receive_all(&mut source, 10..30).await;
    assert!(errors.iter().any(|error| error.contains("silent") && error.contains("count=1")), "{errors:?}");
    publish_numbers(&other, &topic, 30..40).await;
    receive_all(&mut source, 30..40).await;
    drop(source);
    other.close().await.unwrap();
}

async fn publish_some(kafka: &Kafka, topic: &Topic, numbers: std::ops::Range<u32>) {
    kafka.declare(topic).await.unwrap();
    for number in numbers {
        kafka.enqueue(topic, keyed(&number.to_string(), number.to_string())).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_to_which_nothing_comes_while_its_topic_grows_is_made_anew() {
    falls_silent(Some("silent")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_fell_silent_goes_on_where_it_was() {
    falls_silent(None).await;
}

/// A client of librdkafka that has lost all its connections begins anew with those of its address.
/// If it is still reading an answer, it takes that back at the end. If that answer names no
/// brokers, it has none, and asks none again. Reading takes longer for many partitions.
async fn loses_its_brokers(group: Option<&str>) {
    const PARTITIONS: i32 = 200;
    let behind = Behind::start().await;
    let builder = Kafka::builder(behind.url.trim_start_matches("kafka://")).partitions(PARTITIONS);
    let builder = builder.connect_timeout(LONG);
    // Asks again soon.
    let kafka = builder.property("topic.metadata.refresh.interval.ms", "1000").connect().await.unwrap();
    let topic = topic(&kafka, "lost").await;
    let subscription = Subscription::new(&*topic).start(Start::Earliest);
    let subscription = group.map_or(subscription.clone(), |group| subscription.group(group));
    let mut source = kafka.subscribe(&subscription).await.unwrap();
    let (mut begin, mut errors) = (0, Vec::new());
    publish_numbers(&kafka, &topic, 0..10).await;
    receive_all(&mut source, 0..10).await;
    while !errors.iter().any(|error: &String| error.contains("silent")) {
        begin += 10;
        assert!(begin < 100, "the client finds its brokers each time: is the watch needed still? {errors:?}");
        let hidden = behind.hidden();
        behind.hide_brokers();
        while behind.hidden() == hidden {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let other = connect(&behind.url).await.unwrap();
        let begun = Instant::now();
        publish_some(&other, &topic, begin..begin + 10).await;
        errors.extend(receive_all(&mut source, begin..begin + 10).await);
        eprintln!("round {begin}: {:?} {errors:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(30), "silent for {:?}", begun.elapsed());
        other.close().await.unwrap();
    }
    // The producer was told the same, and notices when it is used.
    let begun = Instant::now();
    while let Err(error) = kafka.enqueue(&topic, outbound((begin + 10).to_string())).await {
        assert_eq!(error.publish_outcome(), PublishOutcome::NotSent, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(25), "cut off for {:?}: {error}", begun.elapsed());
    }
    receive_all(&mut source, begin + 10..begin + 11).await;
    kafka.ping().await.unwrap();
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_goes_on_after_it_was_told_of_no_brokers() {
    loses_its_brokers(Some("lost")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_after_it_was_told_of_no_brokers() {
    loses_its_brokers(None).await;
}

/// Messages that were fetched ahead are not fetched again while handlers are at work.
#[tokio::test(flavor = "multi_thread")]
async fn slow_handlers_with_a_small_window_fetch_nothing_twice() {
    let behind = Behind::start().await;
    let kafka = connect(&format!("{}?partitions=1", behind.url)).await.unwrap();
    let topic = topic(&kafka, "slow").await;
    for _ in 0..20 {
        let sent: Vec<_> = (0..1000).map(|_| kafka.enqueue(&topic, outbound(vec![b'x'; 1000]))).collect();
        for confirmation in sent {
            confirmation.await.unwrap();
        }
    }
    let before = behind.sent();
    let mut source = kafka.subscribe(&Subscription::new(&*topic).group(&*topic).prefetch(1)).await.unwrap();
    for _ in 0..10 {
        let inbound = next(&mut source).await;
        tokio::time::sleep(Duration::from_millis(1300)).await;
        ack(inbound).await;
    }
    // All of them are 20 MB, of which 16 MiB are fetched ahead. The rest is for heartbeats.
    let kilobytes = (behind.sent() - before) / 1000;
    assert!(kilobytes < 21_000, "{kilobytes} kB for ten messages of one kilobyte");
    kafka.close().await.unwrap();
}
