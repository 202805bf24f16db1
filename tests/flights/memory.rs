use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use traced_broker::adapters::memory::{Memory, Pending};
use traced_broker::{BrokerUrl, ErrorKind, Message, PublishOutcome, Subscription, Traced, TracedBroker};

use crate::driver::Manual;

/// A million publishes are given up, over a driver that never answers and over a full topic.
#[tokio::test]
async fn abandoned_publishes_leave_no_memory_behind() {
    let broker = Traced::new(Manual::new(16));
    abandon(&broker, 500_000).await;

    let (broker, _workers) = full("abandoned", 30_000).await;
    abandon(&broker, 500_000).await;
    let waiting = broker.get_ref().unfinished().into_iter().find(|left| left.pending == Pending::Room);
    assert_eq!(waiting.map(|left| left.messages), Some(16));
}

async fn abandon(broker: &impl TracedBroker, publishes: usize) {
    let publish = |_| broker.publish("orders", Message::new(Bytes::from(vec![7; 4096]))).now_or_never();
    assert!((0..1000).map(publish).all(|answer| answer.is_none()));
    let before = resident();
    for number in 0..publishes {
        assert!(publish(number).is_none());
        if number % 1000 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown <= 16 * 1024, "{grown} KiB more");
}

/// Returns a broker whose topic `orders` has no room.
async fn full(name: &str, patience: u32) -> (Traced<Memory>, impl Sized) {
    let url = format!("memory://{name}?capacity=1&max_in_flight=16&delivery_timeout={patience}");
    let broker = Traced::new(Memory::connect(&BrokerUrl::parse(&url).unwrap()).unwrap());
    let workers = broker.subscribe(Subscription::new("orders").group("workers")).await.unwrap();
    broker.publish("orders", Message::new("unsettled")).await.unwrap();
    (broker, workers)
}

#[tokio::test(start_paused = true)]
async fn a_publish_to_a_full_topic_ends_in_time_and_was_not_sent() {
    let (broker, _workers) = full("late", 5_000).await;
    let started = tokio::time::Instant::now();
    // The last one waits for a place in flight.
    let publishes = (0..17).map(|_| broker.publish("orders", Message::new("x")));
    for result in futures_util::future::join_all(publishes).await {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Busy, PublishOutcome::NotSent));
    }
    assert!(started.elapsed() < Duration::from_secs(11), "{:?}", started.elapsed());
    assert!(broker.get_ref().unfinished().iter().all(|left| left.pending != Pending::Room));
}

/// Returns the resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
