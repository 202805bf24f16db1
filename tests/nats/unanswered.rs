//! Settlements that were on their way when a connection was lost.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use traced_broker::driver::{Disposition, Driver, Inbound, Source};
use traced_broker::{BrokerUrl, Topic};

use crate::kit::{self, SOON, ack, connect_to, next, next_message, publish_numbers, subscribe, topic};
use crate::proxy::Proxy;
use crate::support::{Kind, shared};

const COUNT: u32 = 200;

async fn proxy() -> Proxy {
    Proxy::start(BrokerUrl::parse(shared(Kind::Nats)).unwrap().hosts(4222).remove(0)).await
}

async fn take(source: &mut Source) -> Vec<Inbound> {
    let mut taken = Vec::new();
    while taken.len() < COUNT as usize {
        taken.push(next_message(source).await);
    }
    taken
}

async fn info(topic: &Topic) -> async_nats::jetstream::consumer::Info {
    let context = async_nats::jetstream::new(kit::raw().await);
    let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
    stream.consumer_info("workers").await.unwrap()
}

async fn unsettled(topic: &Topic) -> usize {
    info(topic).await.num_ack_pending
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settlements_on_a_lost_connection_are_sent_again() {
    for option in ["", "&ack=confirm"] {
        let (proxy, direct) = (proxy().await, kit::connect().await);
        let nats = connect_to(&format!("{}?ack_wait=3000{option}", proxy.url(""))).await.unwrap();
        let topic = topic("unanswered");
        publish_numbers(&direct, &topic, 0..COUNT).await;
        let mut source = subscribe(&nats, &topic, "workers").await;
        let held = take(&mut source).await;
        proxy.deafen();
        let settled = held.into_iter().enumerate().map(|(number, inbound)| {
            inbound.handle.settle(if number % 2 == 0 { Disposition::Ack } else { Disposition::Discard })
        });
        let settled: Vec<_> = settled.collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(unsettled(&topic).await, COUNT as usize);
        proxy.cut();
        // The subscription has to be polled to be restored.
        let again = kit::next_within(&mut source, Duration::from_secs(5)).await;
        assert!(again.is_none(), "{option}: {again:?}");
        for answer in join_all(settled).await {
            answer.unwrap();
        }
        assert_eq!(unsettled(&topic).await, 0, "{option}");
    }
}

/// The connection is away for longer than the server waits, and another member has the messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_that_is_late_does_not_settle_the_delivery_of_another_member() {
    for option in ["", "&ack=confirm"] {
        let (proxy, direct) = (proxy().await, kit::connect_with("?ack=confirm").await);
        let nats = connect_to(&format!("{}?ack_wait=3000{option}", proxy.url(""))).await.unwrap();
        let topic = topic("stale");
        publish_numbers(&direct, &topic, 0..COUNT).await;
        let mut source = subscribe(&nats, &topic, "workers").await;
        let held = take(&mut source).await;
        proxy.deafen();
        let settled: Vec<_> = held.into_iter().map(|inbound| inbound.handle.settle(Disposition::Ack)).collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.go_down();
        let mut other = subscribe(&direct, &topic, "workers").await;
        let others = take(&mut other).await;
        proxy.cut();
        // Both members wait for messages again.
        let restored = async {
            while info(&topic).await.num_waiting < 2 {
                let item = kit::next_within(&mut source, Duration::from_millis(20)).await;
                assert!(item.as_ref().is_none_or(Result::is_err), "{item:?}");
            }
        };
        timeout(SOON, restored).await.expect("another connection");
        nats.ping().await.unwrap();
        timeout(SOON, join_all(settled)).await.expect("answers");
        assert_eq!(unsettled(&topic).await, COUNT as usize, "{option}");
        for inbound in others {
            ack(inbound).await;
        }
        assert_eq!(unsettled(&topic).await, 0, "{option}");
        publish_numbers(&direct, &topic, COUNT..COUNT + 1).await;
        tokio::select! {
            _ = next(&mut other) => {}
            _ = next_message(&mut source) => {}
        }
    }
}
