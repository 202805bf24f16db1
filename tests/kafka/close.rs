//! Closing and dropping: no acknowledgement is lost, and no resource is left behind.

use std::process::Command;
use std::time::{Duration, Instant};

use traced_broker::driver::{Driver, DriverExt};
use traced_broker::{ErrorKind, PublishOutcome, Subscription};

use crate::harness::*;
use crate::support::{Kind, shared};

#[tokio::test(flavor = "multi_thread")]
async fn closing_brings_every_acknowledgement_to_the_broker() {
    // Only the close commits.
    let kafka = connect(&url_with("commit_interval=3600000")).await.unwrap();
    let topic = topic(&kafka, "flush").await;
    publish_numbers(&kafka, &topic, 0..500).await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    drain(&mut source, 500).await;
    kafka.close().await.unwrap();
    let positions = committed(&topic, &topic, 6);
    assert_eq!(positions.iter().map(|position| position.unwrap_or(0)).sum::<i64>(), 500, "{positions:?}");
    assert!(next_item(&mut source).await.is_none(), "the stream ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_refuses_and_closing_again_is_fine() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "closed").await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    publish_numbers(&kafka, &topic, 0..3).await;
    let unsettled = next(&mut source).await;
    let (one, two) = tokio::join!(kafka.close(), kafka.close());
    one.and(two).unwrap();
    kafka.close().await.unwrap();
    let error = kafka.enqueue(&topic, outbound("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Closed, PublishOutcome::NotSent));
    assert_eq!(kafka.subscribe(&Subscription::new(&*topic)).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(kafka.declare(&topic).await.unwrap_err().kind(), ErrorKind::Closed);
    let error = unsettled.handle.settle(traced_broker::driver::Disposition::Ack).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SettlementLost);
    // Buffered deliveries are no longer handed out, because they could not be settled.
    assert!(next_item(&mut source).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_outlives_the_connection_that_is_only_dropped() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "outlives").await;
    publish_numbers(&kafka, &topic, 0..3).await;
    let mut source = subscribe(&kafka, &topic, &topic).await;
    drop(kafka);
    assert_eq!(as_set(drain(&mut source, 3).await), as_set(0..3));
}

/// Set in the separate process of [`no_thread_is_left_behind`].
const ALONE: &str = "TRACED_BROKER_TEST_ALONE";

#[test]
fn no_thread_is_left_behind() {
    if std::env::var_os(ALONE).is_some() {
        return threads_come_and_go();
    }
    // In a separate process, where no other test has threads.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "close::no_thread_is_left_behind", "--nocapture"])
        .env(ALONE, "1")
        .env(Kind::Kafka.variable(), shared(Kind::Kafka))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn threads_come_and_go() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let topic = runtime.block_on(async {
        let kafka = kafka().await;
        let topic = topic(&kafka, "threads").await;
        publish_numbers(&kafka, &topic, 0..20).await;
        let source = subscribe(&kafka, &topic, &topic).await;
        assert!(threads().len() > 4, "{:?}", threads());
        kafka.close().await.unwrap();
        // While connection and stream still exist. A thread may take a moment to exit after its
        // last action.
        wait_for_no_thread(Duration::from_secs(1));
        drop((kafka, source));
        topic
    });
    runtime.block_on(async {
        let kafka = kafka().await;
        let mut source = subscribe(&kafka, &topic, "h").await;
        next(&mut source).await;
        // Unconfirmed, unsettled, not closed.
        drop(kafka.enqueue(&topic, outbound("x")));
        drop((source, kafka));
    });
    wait_for_no_thread(Duration::from_secs(20));
}

fn wait_for_no_thread(limit: Duration) {
    let deadline = Instant::now() + limit;
    while !threads().is_empty() {
        assert!(Instant::now() < deadline, "left: {:?}", threads());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the threads of the adapter and of librdkafka.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names
        .filter(|name| {
            name.starts_with("kafka-consumer") || name.starts_with("kafka-producer") || name.starts_with("rdk:")
        })
        .collect()
}
