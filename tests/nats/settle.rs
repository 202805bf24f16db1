//! Settling: acknowledge, retry, discard.

use std::time::{Duration, Instant};

use traced_broker::driver::{Disposition, Driver};
use traced_broker::{ErrorKind, Subscription};

use crate::kit::{self, ack, assert_quiet, next, publish_numbers, settle, subscribe, text, topic};

#[tokio::test]
async fn what_is_acknowledged_or_discarded_does_not_come_back() {
    for option in ["?ack_wait=300", "?ack_wait=300&ack=confirm"] {
        let nats = kit::connect_with(option).await;
        let topic = topic("settled");
        publish_numbers(&nats, &topic, 0..2).await;
        let mut source = subscribe(&nats, &topic, "workers").await;
        let (first, second) = (next(&mut source).await, next(&mut source).await);
        settle(first, Disposition::Ack).await.unwrap();
        settle(second, Disposition::Discard).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_quiet(&mut source).await;
        drop(source);
        let mut source = subscribe(&nats, &topic, "workers").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_quiet(&mut source).await;
    }
}

#[tokio::test]
async fn a_retry_comes_again_with_its_attempt_counted() {
    let nats = kit::connect().await;
    let topic = topic("retry");
    publish_numbers(&nats, &topic, 0..1).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    for attempt in 1..=4 {
        let inbound = next(&mut source).await;
        assert_eq!((text(&inbound), inbound.attempt, inbound.offset), ("0", attempt, Some(1)));
        settle(inbound, Disposition::Retry(Duration::ZERO)).await.unwrap();
    }
    ack(next(&mut source).await).await;
    assert_quiet(&mut source).await;
}

#[tokio::test]
async fn a_delayed_retry_waits_while_others_pass() {
    let nats = kit::connect().await;
    let topic = topic("delay");
    publish_numbers(&nats, &topic, 0..3).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let delay = Duration::from_millis(700);
    settle(next(&mut source).await, Disposition::Retry(delay)).await.unwrap();
    let retried = Instant::now();
    for expected in ["1", "2"] {
        let inbound = next(&mut source).await;
        assert_eq!(text(&inbound), expected);
        ack(inbound).await;
    }
    let inbound = next(&mut source).await;
    assert_eq!((text(&inbound), inbound.attempt), ("0", 2));
    assert!(retried.elapsed() >= delay - Duration::from_millis(50), "{:?}", retried.elapsed());
    assert!(retried.elapsed() < delay * 3, "{:?}", retried.elapsed());
    ack(inbound).await;
}

#[tokio::test]
async fn what_is_held_longer_than_the_server_waits_stays_with_its_holder() {
    let nats = kit::connect_with("?ack_wait=1500").await;
    let topic = topic("held");
    publish_numbers(&nats, &topic, 0..1).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let mut other = subscribe(&nats, &topic, "workers").await;
    let held = next(&mut source).await;
    tokio::time::sleep(Duration::from_millis(4500)).await;
    assert_quiet(&mut source).await;
    assert_quiet(&mut other).await;
    ack(held).await;
    tokio::time::sleep(Duration::from_millis(2000)).await;
    assert_quiet(&mut other).await;
}

#[tokio::test]
async fn a_handle_that_is_dropped_gives_its_message_back() {
    let nats = kit::connect().await;
    let topic = topic("dropped");
    publish_numbers(&nats, &topic, 0..1).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    drop(next(&mut source).await);
    let inbound = next(&mut source).await;
    assert_eq!((text(&inbound), inbound.attempt, inbound.deliveries), ("0", 1, Some(2)));
}

#[tokio::test]
async fn settling_outlives_the_source() {
    let nats = kit::connect_with("?ack=confirm&ack_wait=1500").await;
    let topic = topic("outlives");
    publish_numbers(&nats, &topic, 0..2).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let (first, second) = (next(&mut source).await, next(&mut source).await);
    drop(source);
    // Still not redelivered after the wait, which a busy machine does not stretch to its end.
    tokio::time::sleep(Duration::from_millis(4500)).await;
    settle(first, Disposition::Ack).await.unwrap();
    settle(second, Disposition::Retry(Duration::ZERO)).await.unwrap();
    let mut source = subscribe(&nats, &topic, "workers").await;
    let inbound = next(&mut source).await;
    assert_eq!((text(&inbound), inbound.attempt), ("1", 2));
    ack(inbound).await;
    assert_quiet(&mut source).await;
}

#[tokio::test]
async fn a_confirmed_settlement_of_a_vanished_group_is_lost() {
    let nats = kit::connect_with("?ack=confirm").await;
    let topic = topic("vanished");
    publish_numbers(&nats, &topic, 0..1).await;
    let mut source = nats.subscribe(&Subscription::new(&*topic).group("workers")).await.unwrap();
    let inbound = next(&mut source).await;
    let context = async_nats::jetstream::new(kit::raw().await);
    context.delete_stream(topic.replace('.', "~")).await.unwrap();
    let error = settle(inbound, Disposition::Ack).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SettlementLost);
}
