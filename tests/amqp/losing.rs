//! Deliveries that end before they are settled, and the end of the intake.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use lapin::options::QueueDeleteOptions;
use tokio::time::timeout;
use traced_broker::ErrorKind;
use traced_broker::driver::{Disposition, Driver, DriverExt, Inbound};

use crate::driving::*;

/// Waits for the end of a delivery without polling its source.
async fn over(inbound: &Inbound) {
    timeout(PATIENCE, inbound.tenure.over()).await.expect("the end is noticed although nobody polls");
}

#[tokio::test]
async fn a_cancelled_consumer_ends_its_deliveries_although_nobody_polls() {
    let topic = unique("cancelled");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("held"))).await.unwrap();
    let held = next(&mut source).await;
    assert!(!held.tenure.is_over());
    let channel = raw().await.create_channel().await.unwrap();
    channel.queue_delete(format!("{topic}.g").into(), QueueDeleteOptions::default()).await.unwrap();
    over(&held).await;
    assert_eq!(settle(held, Disposition::Ack).await.unwrap_err().kind(), ErrorKind::SettlementLost);
}

#[tokio::test]
async fn closing_ends_the_deliveries() {
    let topic = unique("closed");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("held"))).await.unwrap();
    let held = next(&mut source).await;
    amqp.close().await.unwrap();
    over(&held).await;
}

/// After the stop, other members get what was fetched ahead, and deliveries that are out can be
/// settled in every way.
#[tokio::test]
async fn a_stopped_source_takes_nothing_and_settles_what_is_out() {
    let topic = unique("stopped");
    let amqp = connect("").await.unwrap();
    let mut leaving = subscribe(&amqp, group(&topic, "g").prefetch(10)).await;
    for n in 0..10 {
        confirmed(amqp.enqueue(&topic, outbound(n.to_string()))).await.unwrap();
    }
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(next(&mut leaving).await);
    }
    leaving.stop();
    let mut staying = subscribe(&amqp, group(&topic, "g")).await;
    let mut rest = HashSet::new();
    for _ in 4..10 {
        let inbound = next(&mut staying).await;
        assert_eq!(inbound.attempt, 1);
        rest.insert(text(&inbound));
        settle(inbound, Disposition::Ack).await.unwrap();
    }
    assert_eq!(rest, (4..10).map(|n| n.to_string()).collect());
    confirmed(amqp.enqueue(&topic, outbound("later"))).await.unwrap();
    assert_eq!(next_text(&mut staying).await, "later", "the stopped source takes nothing more");
    assert!(held.iter().all(|inbound| !inbound.tenure.is_over()));
    settle(held.remove(0), Disposition::Ack).await.unwrap();
    settle(held.remove(0), Disposition::Discard).await.unwrap();
    settle(held.remove(0), Disposition::GiveBack).await.unwrap();
    let back = next(&mut staying).await;
    assert_eq!((text(&back), back.attempt), ("2".to_owned(), 1));
    settle(back, Disposition::Ack).await.unwrap();
    settle(held.remove(0), Disposition::Retry(Duration::ZERO)).await.unwrap();
    let back = next(&mut staying).await;
    assert_eq!((text(&back), back.attempt), ("3".to_owned(), 2));
    settle(back, Disposition::Ack).await.unwrap();
    drop(leaving);
    silent(&mut staying).await;
}

/// A handler that blocks the only thread of its runtime does not silence the connection.
#[tokio::test]
async fn blocking_handlers_do_not_starve_heartbeats() {
    let topic = unique("blocking");
    let amqp = connect("?heartbeat=1").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("slow"))).await.unwrap();
    let held = next(&mut source).await;
    // The server gives a silent connection up after twice the interval, and the client does the
    // same.
    std::thread::sleep(Duration::from_secs(6));
    assert!(!held.tenure.is_over());
    settle(held, Disposition::Ack).await.expect("the connection is the same");
    confirmed(amqp.enqueue(&topic, outbound("next"))).await.expect("so is the one that publishes");
    assert_eq!(next_text(&mut source).await, "next", "the slow message does not come again");
    silent(&mut source).await;
}

/// A client that is kept in a static outlives the runtime in which it was made.
#[test]
fn a_driver_outlives_the_runtime_that_made_it() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let topic = unique("runtimes");
    let amqp = runtime().block_on(connect("")).unwrap();
    let begin = Instant::now();
    runtime().block_on(async {
        let mut source = subscribe(&amqp, group(&topic, "g")).await;
        confirmed(amqp.enqueue(&topic, outbound("hello"))).await.unwrap();
        assert_eq!(next_text(&mut source).await, "hello");
    });
    runtime().block_on(amqp.close()).unwrap();
    assert!(begin.elapsed() < PATIENCE);
}
