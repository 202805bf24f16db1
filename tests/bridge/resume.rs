//! A bridge that is stopped in the middle of its work, and continues.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::timeout;
use traced_broker::{Bridged, Message, TracedBroker, TracedBrokerExt};

use crate::setup::{End, SOON, Setup, receive, text};

const MESSAGES: usize = 300;

/// Runs a bridge until this many messages have been taken up.
async fn stop_after(setup: &Setup, messages: usize) -> Bridged {
    let (enough, set_out) = (Notify::new(), AtomicUsize::new(0));
    let bridge = setup.from.bridge(setup.bridged(), &setup.to, &setup.far).in_flight(16);
    let bridge = bridge.prepare(|message, _| {
        if set_out.fetch_add(1, Ordering::Relaxed) + 1 == messages {
            enough.notify_one();
        }
        Ok(message)
    });
    bridge.run_until(enough.notified()).await.unwrap()
}

/// Runs a bridge until this many messages have arrived.
async fn finish(setup: &Setup, messages: u64) -> Bridged {
    let enough = Notify::new();
    let bridge = setup.from.bridge(setup.bridged(), &setup.to, &setup.far).in_flight(16);
    let bridge = bridge.progress_every(Duration::from_millis(20)).on_progress(|now| {
        if now.copied >= messages {
            enough.notify_one();
        }
    });
    timeout(SOON, bridge.run_until(enough.notified())).await.expect("all cross").unwrap()
}

async fn it_goes_on_where_it_stopped(from: End, to: End) {
    let setup = Setup::new(from, to).await;
    let sent = (0..MESSAGES).map(|order| setup.from.publish(&setup.near, Message::new(order.to_string())));
    assert!(join_all(sent).await.iter().all(Result::is_ok));

    let first = stop_after(&setup, 50).await;
    assert!((50..MESSAGES as u64).contains(&first.progress.copied), "stopped in the middle: {first}");
    assert_eq!((first.consumed.handled, first.consumed.unsettled), (first.progress.copied, 0), "{first}");
    let rest = MESSAGES as u64 - first.progress.copied;
    let second = finish(&setup, rest).await;
    assert_eq!(second.progress.copied, rest, "each crossed once: {first}; {second}");

    let (mut arrivals, mut arrived) = (setup.arrivals().await, BTreeSet::new());
    for _ in 0..MESSAGES {
        assert!(arrived.insert(text(&receive(&mut arrivals).await)), "none came twice");
    }
    setup.close().await;
    setup.spans.assert_whole(MESSAGES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_nats_to_redis() {
    it_goes_on_where_it_stopped(End::Nats, End::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_kafka_to_nats() {
    it_goes_on_where_it_stopped(End::Kafka, End::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_rabbitmq_to_kafka() {
    it_goes_on_where_it_stopped(End::RabbitMq, End::Kafka).await;
}
