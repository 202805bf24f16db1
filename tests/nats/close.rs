//! Closing a connection, and dropping it without closing.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::timeout;
use traced_broker::driver::{Disposition, Driver, DriverExt};
use traced_broker::{ErrorKind, PublishOutcome, Subscription};

use crate::process::Process;

use crate::kit::{self, ack, assert_quiet, message, next, publish, publish_numbers, settle, subscribe, text, topic};

#[tokio::test]
async fn closing_brings_acknowledgements_home() {
    let looking = kit::raw().await;
    for round in 0..10 {
        let nats = kit::connect().await;
        let topic = topic("home");
        publish_numbers(&nats, &topic, 0..200).await;
        let mut source = subscribe(&nats, &topic, "workers").await;
        let mut deliveries = Vec::new();
        for _ in 0..200 {
            deliveries.push(next(&mut source).await);
        }
        for inbound in deliveries {
            ack(inbound).await;
        }
        // If the source is dropped first, only the driver is left to deliver the acknowledgements.
        if round % 2 == 0 {
            drop(source);
        }
        nats.close().await.unwrap();
        let context = async_nats::jetstream::new(looking.clone());
        let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
        let info = stream.consumer_info("workers").await.unwrap();
        assert_eq!((info.num_ack_pending, info.ack_floor.stream_sequence), (0, 200), "the moment close returns");
    }
}

#[tokio::test]
async fn what_is_unsettled_at_close_goes_to_others_at_once() {
    let nats = kit::connect().await;
    let other = kit::connect().await;
    let topic = topic("unsettled");
    publish_numbers(&nats, &topic, 0..5).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let held = next(&mut source).await;
    let start = Instant::now();
    nats.close().await.unwrap();
    let mut heir = subscribe(&other, &topic, "workers").await;
    let mut numbers = Vec::new();
    for _ in 0..5 {
        let inbound = next(&mut heir).await;
        numbers.push(text(&inbound).to_owned());
        ack(inbound).await;
    }
    numbers.sort();
    assert_eq!(numbers, ["0", "1", "2", "3", "4"]);
    assert!(start.elapsed() < Duration::from_secs(3), "sooner than the server would by itself: {:?}", start.elapsed());
    let error = settle(held, Disposition::Ack).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SettlementLost);
    assert_quiet(&mut heir).await;
}

#[tokio::test]
async fn sources_end_and_everything_later_is_refused() {
    for mode in ["", "?mode=core"] {
        let nats = kit::connect_with(mode).await;
        let topic = topic("closed");
        nats.declare(&topic).await.unwrap();
        let subscription = Subscription::new(&*topic).group("workers").at_most_once();
        let mut waiting = nats.subscribe(&subscription).await.unwrap();
        let waiting = tokio::spawn(async move { poll_fn(|cx| waiting.poll_next(cx)).await.is_none() });
        let mut later = nats.subscribe(&subscription).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        nats.close().await.unwrap();
        assert!(timeout(kit::SOON, waiting).await.unwrap().unwrap(), "one that was waiting");
        assert!(timeout(kit::SOON, poll_fn(|cx| later.poll_next(cx))).await.unwrap().is_none(), "and one that was not");
        assert!(timeout(kit::SOON, poll_fn(|cx| later.poll_next(cx))).await.unwrap().is_none(), "and stays so");

        let error = publish(&nats, &topic, message("x")).await.unwrap_err();
        assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Closed, PublishOutcome::NotSent));
        assert_eq!(nats.subscribe(&subscription).await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(nats.declare(&topic).await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(nats.ping().await.unwrap_err().kind(), ErrorKind::Closed);
        nats.close().await.unwrap();
    }
}

#[tokio::test]
async fn closing_waits_for_core_publishes() {
    let nats = kit::connect_with("?mode=core").await;
    let topic = topic("flushed");
    let mut listener = kit::raw().await.subscribe(topic.to_string()).await.unwrap();
    kit::connect_with("?mode=core").await.ping().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for number in 0..1000 {
        let receipt = publish(&nats, &topic, message(number.to_string())).await.unwrap();
        assert!(!receipt.confirmed);
    }
    nats.close().await.unwrap();
    drop(nats);
    for number in 0..1000 {
        let message = timeout(kit::SOON, futures_util::StreamExt::next(&mut listener)).await.unwrap().unwrap();
        assert_eq!(message.payload, number.to_string());
    }
}

#[tokio::test]
async fn dropping_without_close_leaves_nothing_running() {
    let server = Process::start(&["--jetstream"]);
    let before = Handle::current().metrics().num_alive_tasks();
    for mode in ["", "?mode=core"] {
        let nats = kit::connect_to(&format!("nats://127.0.0.1:{}{mode}", server.port())).await.unwrap();
        let topic = topic("dropped");
        nats.declare(&topic).await.unwrap();
        let mut sources = Vec::new();
        for _ in 0..3 {
            sources.push(nats.subscribe(&Subscription::new(&*topic).group("workers").at_most_once()).await.unwrap());
            sources.push(nats.subscribe(&Subscription::new(&*topic).at_most_once()).await.unwrap());
        }
        let unanswered = nats.enqueue(&topic, message("x"));
        let held = next(&mut sources[1]).await;
        assert!(connections(server.port()) > 6);
        drop(nats);
        drop(sources);
        drop((unanswered, held));
        let start = Instant::now();
        while connections(server.port()) > 0 || Handle::current().metrics().num_alive_tasks() > before {
            assert!(start.elapsed() < kit::SOON, "{} connections are still open", connections(server.port()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Returns the number of open connections to a port.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_to_port = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|remote| remote.ends_with(&format!(":{port:04X}"))) && fields.next() == Some("01")
    };
    table.lines().filter(is_to_port).count()
}

#[test]
fn dropping_outside_a_runtime_is_fine() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let parts = runtime.block_on(async {
        let nats = kit::connect().await;
        let topic = topic("outside");
        publish_numbers(&nats, &topic, 0..2).await;
        let mut source = subscribe(&nats, &topic, "workers").await;
        let inbound = next(&mut source).await;
        (nats, source, inbound)
    });
    drop(runtime);
    drop(parts);
}
