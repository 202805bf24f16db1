//! Stopping: the intake ends, the rest goes to other members at once, and what is out can be
//! settled.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use traced_broker::driver::{Disposition, Driver};

use crate::harness::*;

/// Maximum time until another member has what was given back, far below the `claim_idle` of these
/// tests.
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stops_takes_nothing_more() {
    let (one, two, topic) = (broker().await, broker().await, topic("stop"));
    let mut leaving = subscribe(&one, &topic, "g").await;
    publish_numbers(&one, &topic, 0..20).await;
    let out = next(&mut leaving).await;
    eventually("all are read", || async { Raw::new().await.pending(&topic, "g").await.len() == 20 }).await;
    let mut staying = subscribe(&two, &topic, "g").await;
    leaving.stop();
    publish_numbers(&one, &topic, 20..30).await;
    let began = Instant::now();
    let mut came = Vec::new();
    while came.len() < 29 {
        let message = next(&mut staying).await;
        assert_eq!((message.attempt, message.deliveries), (1, Some(1)), "giving back is not counted");
        came.push(text(&message).parse::<usize>().unwrap());
        ack(message).await.unwrap();
    }
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    came.sort_unstable();
    assert_eq!(came, (1..30).collect::<Vec<_>>());
    assert!(!out.tenure.is_over());
    ack(out).await.unwrap();
    assert!(Raw::new().await.pending(&topic, "g").await.is_empty());
    for broker in [one, two] {
        broker.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_source_gives_back_while_a_delivery_is_out() {
    let (one, two, topic) = (broker().await, broker().await, topic("dropped"));
    let mut leaving = subscribe(&one, &topic, "g").await;
    publish_numbers(&one, &topic, 0..5).await;
    let out = next(&mut leaving).await;
    eventually("all are read", || async { Raw::new().await.pending(&topic, "g").await.len() == 5 }).await;
    drop(leaving);
    let mut staying = subscribe(&two, &topic, "g").await;
    let rest = timeout(AT_ONCE, drain(&mut staying, 4)).await.expect("given back at once");
    assert_eq!(rest, numbers(1..5));
    ack(out).await.unwrap();
    nothing_comes(&mut staying).await;
    for broker in [one, two] {
        broker.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_is_given_back_costs_nothing() {
    let (broker, topic) = (broker().await, topic("back"));
    let mut source = broker.subscribe(&of_group(&topic, "g").prefetch(2)).await.unwrap();
    publish_numbers(&broker, &topic, 0..2).await;
    let (untouched, failed) = (next(&mut source).await, next(&mut source).await);
    failed.handle.failed(1);
    let back = (untouched.handle.settle(Disposition::GiveBack), failed.handle.settle(Disposition::GiveBack));
    back.0.await.unwrap();
    back.1.await.unwrap();
    let again = timeout(AT_ONCE, next(&mut source)).await.expect("given back at once");
    assert_eq!((text(&again), again.attempt, again.deliveries), ("0".to_owned(), 1, Some(1)));
    ack(again).await.unwrap();
    let again = timeout(AT_ONCE, next(&mut source)).await.expect("given back at once");
    assert_eq!((text(&again), again.attempt), ("1".to_owned(), 2), "an attempt that failed stays counted");
    ack(again).await.unwrap();
    broker.close().await.unwrap();
}

/// A subscription that is dropped at once takes nothing, or gives back what it took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_dropped_at_once_leaves_nothing_behind() {
    let (broker, topic) = (broker().await, topic("at-once"));
    publish_numbers(&broker, &topic, 0..50).await;
    for round in 0..20 {
        let source = subscribe(&broker, &topic, "g").await;
        // Sooner or later after its task has begun.
        tokio::time::sleep(Duration::from_micros(round * 100)).await;
        drop(source);
    }
    let mut raw = Raw::new().await;
    eventually("all have left", || async {
        Raw::new().await.consumers(&topic, "g").await.iter().all(|name| name == "traced-broker-returned")
    })
    .await;
    let pending = raw.pending(&topic, "g").await;
    assert!(pending.iter().all(|(_, holder, ..)| holder == "traced-broker-returned"), "{pending:?}");
    let mut source = subscribe(&broker, &topic, "g").await;
    let mut came = Vec::new();
    while came.len() < 50 {
        let message = timeout(AT_ONCE, next(&mut source)).await.expect("given back at once");
        assert_eq!((message.attempt, message.deliveries), (1, Some(1)));
        came.push(text(&message).parse::<usize>().unwrap());
        ack(message).await.unwrap();
    }
    came.sort_unstable();
    assert_eq!(came, (0..50).collect::<Vec<_>>());
    broker.close().await.unwrap();
}

/// Messages of an at-most-once group are gone when they are read: nothing is read for a
/// subscription that has ended.
#[tokio::test]
async fn a_subscription_at_most_once_that_is_dropped_reads_nothing_more() {
    let (broker, topic) = (broker().await, topic("most-once"));
    let once = of_group(&topic, "g").at_most_once();
    publish_numbers(&broker, &topic, 0..50).await;
    for _ in 0..20 {
        // On this runtime of one thread, its task has not begun.
        drop(broker.subscribe(&once).await.unwrap());
        tokio::task::yield_now().await;
    }
    let mut source = broker.subscribe(&once).await.unwrap();
    let mut came = Vec::new();
    while came.len() < 50 {
        came.push(text(&next_within(&mut source, WHILE * 5).await.expect("it was not read before").unwrap()));
    }
    assert_eq!(came, numbers(0..50));
    broker.close().await.unwrap();
}
