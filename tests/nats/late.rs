//! Messages that were on the wire when a connection was lost, and were sent back to the server,
//! come before newer ones.

use std::time::Duration;

use traced_broker::driver::{Disposition, Driver};
use traced_broker::{BrokerUrl, Subscription};

use crate::kit::{
    self, ack, assert_quiet, connect_to, message, next, next_message, publish, publish_numbers, settle, subscribe,
    text, topic,
};
use crate::proxy::Proxy;
use crate::support::{Kind, shared};

async fn proxy() -> Proxy {
    Proxy::start(BrokerUrl::parse(shared(Kind::Nats)).unwrap().hosts(4222).remove(0)).await
}

/// Of those sent back, some are lost on the wire once more and others are still at the server,
/// which then has the later ones first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_lost_twice_keep_their_order() {
    let (proxy, direct) = (proxy().await, kit::connect().await);
    let nats = connect_to(&format!("{}?ack_wait=60000", proxy.url(""))).await.unwrap();
    let topic = topic("twice");
    direct.declare(&topic).await.unwrap();
    let mut source = nats.subscribe(&Subscription::new(&*topic).group("workers").prefetch(8)).await.unwrap();
    for _ in 0..4 {
        publish(&direct, &topic, message("a retry")).await.unwrap();
        let inbound = next(&mut source).await;
        settle(inbound, Disposition::Retry(Duration::from_millis(500))).await.unwrap();
    }
    // All that is requested is on the wire, and the retries are due.
    proxy.swallow();
    publish_numbers(&direct, &topic, 0..8).await;
    assert_quiet(&mut source).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    // The retries and half of the messages are on the wire, and lost.
    proxy.cut_and_swallow_from("a retry");
    let early = kit::next_within(&mut source, Duration::from_secs(2)).await;
    assert!(early.as_ref().is_none_or(Result::is_err), "{early:?}");
    proxy.cut();
    publish_numbers(&direct, &topic, 8..16).await;
    for number in 0..16 {
        let inbound = next_message(&mut source).await;
        assert_eq!(text(&inbound), number.to_string());
        ack(inbound).await;
    }
}

/// The server learns of the loss after the client is back, and has handed messages to the
/// connection that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_to_a_connection_that_the_server_still_trusts_keep_their_order() {
    let (proxy, direct) = (proxy().await, kit::connect().await);
    let nats = connect_to(&format!("{}?ack_wait=60000", proxy.url(""))).await.unwrap();
    let topic = topic("trust");
    publish_numbers(&direct, &topic, 0..1).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    ack(next(&mut source).await).await;
    proxy.cut_unnoticed(Duration::from_millis(300));
    let publishing = async {
        for number in 1..60 {
            publish_numbers(&direct, &topic, number..number + 1).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reading = async {
        for number in 1..60 {
            let inbound = next_message(&mut source).await;
            assert_eq!(text(&inbound), number.to_string());
            ack(inbound).await;
        }
    };
    tokio::join!(publishing, reading);
}
