//! The end of a delivery's tenure, stopping, and handlers that block.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use traced_broker::ErrorKind;
use traced_broker::driver::{Disposition, Driver};

use crate::kit::{self, ack, assert_quiet, connect_to, next, publish_numbers, settle, subscribe, text, topic};
use crate::support::{Kind, Server, shared};

/// The server redelivers what is not renewed for as long as it waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_with_the_time_that_the_server_waits_though_nobody_polls() {
    let server = Arc::new(spawn_blocking(|| Server::start(Kind::Nats)).await.unwrap());
    let nats = connect_to(&format!("{}?ack_wait=3000", server.url())).await.unwrap();
    let topic = topic("cut");
    publish_numbers(&nats, &topic, 0..2).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let (first, second) = (next(&mut source).await, next(&mut source).await);
    let killed = Arc::clone(&server);
    spawn_blocking(move || killed.kill()).await.unwrap();
    assert!(!first.tenure.is_over() && !second.tenure.is_over());
    timeout(kit::SOON, first.tenure.over()).await.expect("the server waits no longer");
    assert!(second.tenure.is_over());
}

/// Nobody makes sure of the next connection for a member that has stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_with_the_connection_once_it_has_stopped() {
    let server = Arc::new(spawn_blocking(|| Server::start(Kind::Nats)).await.unwrap());
    let nats = connect_to(&server.url()).await.unwrap();
    let topic = topic("stopped");
    publish_numbers(&nats, &topic, 0..1).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let held = next(&mut source).await;
    source.stop();
    assert!(!held.tenure.is_over());
    let killed = Arc::clone(&server);
    spawn_blocking(move || killed.kill()).await.unwrap();
    timeout(kit::SOON / 2, held.tenure.over()).await.expect("the connection is lost");
}

#[tokio::test]
async fn ends_with_the_group_though_nobody_polls_or_requests() {
    let nats = kit::connect_with("?ack_wait=1500").await;
    let topic = topic("deleted");
    publish_numbers(&nats, &topic, 0..3).await;
    let workers = traced_broker::Subscription::new(&*topic).group("workers").prefetch(1);
    let mut source = nats.subscribe(&workers).await.unwrap();
    let held = next(&mut source).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!held.tenure.is_over(), "it is renewed");
    let context = jetstream::new(kit::raw().await);
    let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
    stream.delete_consumer("workers").await.unwrap();
    timeout(kit::SOON, held.tenure.over()).await.expect("the group is gone");
    assert_eq!(settle(held, Disposition::Ack).await.unwrap_err().kind(), ErrorKind::SettlementLost);
    // The subscription goes on with the group that it makes again.
    ack(kit::next_message(&mut source).await).await;
}

#[tokio::test]
async fn ends_with_a_close() {
    let nats = kit::connect().await;
    let topic = topic("closed");
    publish_numbers(&nats, &topic, 0..1).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let held = next(&mut source).await;
    nats.close().await.unwrap();
    assert!(held.tenure.is_over());
}

/// A member that stops gives back its fetched messages at once, and keeps those that it was handed.
#[tokio::test]
async fn a_member_that_stops_takes_no_more_and_finishes_what_it_has() {
    let (nats, other) = (kit::connect().await, kit::connect().await);
    let topic = topic("stop");
    publish_numbers(&nats, &topic, 0..10).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let held = next(&mut source).await;
    let mut heir = subscribe(&other, &topic, "workers").await;
    let begun = Instant::now();
    source.stop();
    let mut numbers = Vec::new();
    for _ in 0..9 {
        let inbound = next(&mut heir).await;
        assert_eq!(inbound.attempt, 1);
        numbers.push(text(&inbound).to_owned());
        ack(inbound).await;
    }
    numbers.sort();
    assert_eq!(numbers, ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    for number in 10..40 {
        publish_numbers(&other, &topic, number..number + 1).await;
        let inbound = next(&mut heir).await;
        assert_eq!(
            (text(&inbound), inbound.deliveries),
            (number.to_string().as_str(), Some(1)),
            "to the one that reads"
        );
        ack(inbound).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "sooner than the server would by itself: {:?}", begun.elapsed());
    assert!(!held.tenure.is_over());
    ack(held).await;
    assert_quiet(&mut heir).await;
    drop(source);
    nats.close().await.unwrap();
    assert_quiet(&mut heir).await;
}

/// Handlers that block every thread of the runtime keep their messages, and fetched ones too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_block_keep_their_messages() {
    let nats = kit::connect_with("?ack_wait=1500").await;
    let topic = topic("block");
    publish_numbers(&nats, &topic, 0..4).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let (first, second) = (next(&mut source).await, next(&mut source).await);
    let producer = topic.clone();
    let producing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let nats = connect_to(shared(Kind::Nats)).await.unwrap();
            publish_numbers(&nats, &producer, 4..8).await;
        });
    });
    let block = || async { std::thread::sleep(Duration::from_secs(4)) };
    let blocked = [tokio::spawn(block()), tokio::spawn(block())];
    for blocked in blocked {
        blocked.await.unwrap();
    }
    producing.join().unwrap();
    ack(first).await;
    ack(second).await;
    for number in 2..8 {
        let inbound = next(&mut source).await;
        assert_eq!((text(&inbound), inbound.deliveries), (number.to_string().as_str(), Some(1)));
        ack(inbound).await;
    }
    assert_quiet(&mut source).await;
}
