//! Connections on which nothing happens: kept alive, and found out when the other side is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use traced_broker::Subscription;
use traced_broker::driver::{Driver, DriverExt};

use crate::harness::*;

/// Returns the server's numbers of all connections but this one.
async fn connections(raw: &mut Raw) -> BTreeSet<String> {
    let listed: String = raw.run(&["CLIENT", "LIST"]).await;
    let others = listed.lines().filter(|line| !line.contains("cmd=client"));
    others.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// A server that closes silent connections closes none of these: a publisher, a member and a reader
/// whose prefetch is used up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_kept_alive() {
    let server = server().await;
    let (mut raw, topic) = (Raw::at(&server.url()).await, topic("silent"));
    let broker = connect(&format!("{}?claim_idle=1200", server.url())).await.unwrap();
    let mut group = broker.subscribe(&of_group(&topic, "g").prefetch(1)).await.unwrap();
    let mut reader = broker.subscribe(&Subscription::new(&*topic).prefetch(1)).await.unwrap();
    publish_numbers(&broker, &topic, 0..3).await;
    let held = [next(&mut group).await, next(&mut reader).await];
    let before = connections(&mut raw).await;
    assert_eq!(before.len(), 4, "{before:?}");
    let _: () = raw.run(&["CONFIG", "SET", "timeout", "2"]).await;
    drop(raw);
    for source in [&mut group, &mut reader] {
        if let Some(item) = next_within(source, Duration::from_secs(5)).await {
            panic!("nothing should have come: {item:?}");
        }
    }
    assert_eq!(connections(&mut Raw::at(&server.url()).await).await, before, "the same connections");
    for message in held {
        ack(message).await.unwrap();
    }
    assert_eq!(text(&next(&mut group).await), "1");
    broker.close().await.unwrap();
}

/// A member whose reader is lost keeps its deliveries, and its settler's loss does not matter to
/// them either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_one_connection_leaves_the_deliveries_good() {
    let server = server().await;
    let (mut raw, topic) = (Raw::at(&server.url()).await, topic("lost-one"));
    let broker = connect(&server.url()).await.unwrap();
    let mut source = broker.subscribe(&of_group(&topic, "g").prefetch(3)).await.unwrap();
    publish_numbers(&broker, &topic, 0..2).await;
    for number in ["0", "1"] {
        let held = next_message(&mut source).await;
        assert_eq!((text(&held).as_str(), held.deliveries), (number, Some(1)));
        let listed: String = raw.run(&["CLIENT", "LIST"]).await;
        // The reader is the one that waits for entries; the settler renewed or joined.
        let is_meant = |line: &&str| line.contains("cmd=xreadgroup") == (number == "0");
        let own = listed.lines().filter(|line| !line.contains("cmd=client"));
        let ids = own.filter(is_meant).filter_map(|line| line.split(' ').next()?.strip_prefix("id="));
        for id in ids {
            let _: i64 = raw.run(&["CLIENT", "KILL", "ID", id]).await;
        }
        ack(held).await.unwrap();
    }
    broker.close().await.unwrap();
}

/// A server that stands still is noticed while nothing is published: the next message is not sent
/// into a connection that gives no answer, but waits for the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_noticed_while_nothing_happens() {
    let server = server().await;
    let broker = connect(&format!("{}?claim_idle=400&response_timeout=500", server.url())).await.unwrap();
    let topic = topic("gone");
    publish(&broker, &topic, message("before")).await.unwrap();
    let server = blocking(move || {
        server.pause();
        server
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let waiting = broker.enqueue(&topic, message("waits"));
    let server = blocking(move || {
        std::thread::sleep(Duration::from_secs(2));
        server.resume();
        server
    })
    .await;
    tokio::time::timeout(SOON, waiting).await.expect("an answer").unwrap();
    assert_eq!(Raw::at(&server.url()).await.run::<usize>(&["XLEN", &topic]).await, 2);
    broker.close().await.unwrap();
}
