//! Closing: confirmed messages are stored, no resources are left behind, and no call hangs.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use traced_broker::driver::{Disposition, Driver, DriverExt};
use traced_broker::{ErrorKind, PublishOutcome, Subscription};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brings_acknowledgements_and_publishes_to_the_server() {
    let (broker, topic) = (broker().await, topic("flush"));
    let mut source = broker.subscribe(&of_group(&topic, "g").prefetch(1000)).await.unwrap();
    publish_numbers(&broker, &topic, 0..1000).await;
    let mut settlements = Vec::new();
    while settlements.len() < 900 {
        settlements.push(next(&mut source).await.handle.settle(Disposition::Ack));
    }
    let publishes: Vec<_> = (0..1000).map(|number| broker.enqueue(&topic, message(number.to_string()))).collect();
    broker.close().await.unwrap();
    let mut raw = Raw::new().await;
    let pending = raw.pending(&topic, "g").await;
    // Those that were read and not handed out. How many were read depends on their size.
    assert!(pending.len() <= 1000, "{}", pending.len());
    let settled: Vec<String> = raw
        .run::<Vec<(String, ::redis::Value)>>(&["XRANGE", &topic, "-", "+", "COUNT", "900"])
        .await
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert!(pending.iter().all(|(id, ..)| !settled.contains(id)), "every acknowledgement is at the server");
    assert_eq!(raw.run::<usize>(&["XLEN", &topic]).await, 2000, "so is every publish");
    for settlement in settlements {
        settlement.await.unwrap();
    }
    for publish in publishes {
        publish.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_nothing_behind_and_hands_over_at_once() {
    let (first, second, topic) = (broker().await, broker().await, topic("leave"));
    let mut source = subscribe(&first, &topic, "g").await;
    let mut other = subscribe(&second, &topic, "g").await;
    let mut raw = Raw::new().await;
    publish_numbers(&first, &topic, 0..1).await;
    let (one, two) = tokio::join!(next_within(&mut source, WHILE), next_within(&mut other, WHILE));
    let (taker, unsettled) = if one.is_some() { (second, (one, first)) } else { (first, (two, second)) };
    assert_eq!(raw.consumers(&topic, "g").await.len(), 2);
    unsettled.1.close().await.unwrap();
    // None of the default `claim_idle` of twenty seconds has passed.
    let mut third = subscribe(&taker, &topic, "g").await;
    let message = timeout(Duration::from_secs(5), next(&mut third)).await.expect("given back by the one that left");
    assert_eq!((text(&message), message.attempt, message.deliveries), ("0".to_owned(), 1, Some(2)));
    ack(message).await.unwrap();
    taker.close().await.unwrap();
    let left = raw.consumers(&topic, "g").await;
    assert_eq!(left, ["traced-broker-returned"], "only the name under which it was given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_at_once_and_twice() {
    let (broker, topic) = (broker().await, topic("twice"));
    let mut sources = Vec::new();
    for subscription in
        [of_group(&topic, "g"), of_group(&topic, "h"), of_group(&topic, "o").at_most_once(), Subscription::new(&*topic)]
    {
        sources.push(broker.subscribe(&subscription).await.unwrap());
    }
    publish_numbers(&broker, &topic, 0..1).await;
    let held = next(&mut sources[0]).await;
    for source in &mut sources[1..] {
        ack(next(source).await).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    let (first, second) = tokio::join!(broker.close(), broker.close());
    first.unwrap();
    second.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "a waiting read is ended: {:?}", began.elapsed());
    broker.close().await.unwrap();
    for mut source in sources {
        the_end(&mut source).await;
    }
    assert_eq!(ack(held).await.unwrap_err().kind(), ErrorKind::SettlementLost);
    let mut raw = Raw::new().await;
    for (group, left) in [("g", 1), ("h", 0), ("o", 0)] {
        assert_eq!(raw.consumers(&topic, group).await.len(), left, "consumers left in {group}");
    }
    let error = publish(&broker, &topic, message("late")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Closed, PublishOutcome::NotSent));
    assert_eq!(broker.subscribe(&of_group(&topic, "g")).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(broker.declare(&topic).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(broker.ping().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_its_connections_when_it_is_closed_or_dropped() {
    let server = server().await;
    let topic = topic("connections");
    let mut raw = Raw::at(&server.url()).await;
    for close in [true, false] {
        let broker = connect(&server.url()).await.unwrap();
        let source = subscribe(&broker, &topic, "g").await;
        let reader = broker.subscribe(&Subscription::new(&*topic)).await.unwrap();
        broker.ping().await.unwrap();
        assert_eq!(connections(&mut raw).await, 5, "publishing 1, a member 2, a reader 1, and this test's");
        if close {
            broker.close().await.unwrap();
            assert_eq!(connections(&mut raw).await, 1, "nothing is left when close returns");
        }
        drop(broker);
        let began = Instant::now();
        while connections(&mut raw).await > 1 {
            assert!(began.elapsed() < SOON, "connections of a dropped broker");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop((source, reader));
    }
}

async fn connections(raw: &mut Raw) -> usize {
    raw.run::<String>(&["CLIENT", "LIST", "TYPE", "normal"]).await.lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_source_ends_its_subscription_only() {
    let server = server().await;
    let (broker, topic) = (connect(&server.url()).await.unwrap(), topic("source"));
    let mut raw = Raw::at(&server.url()).await;
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..5).await;
    let held = next(&mut source).await;
    drop(source);
    tokio::time::sleep(WHILE).await;
    assert_eq!(connections(&mut raw).await, 4, "what is unsettled can still be settled");
    ack(held).await.unwrap();
    let began = Instant::now();
    while connections(&mut raw).await > 2 {
        assert!(began.elapsed() < SOON, "connections of a dropped source");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut again = subscribe(&broker, &topic, "g").await;
    assert_eq!(drain(&mut again, 4).await, numbers(1..5), "the rest comes to the next one");
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_while_the_server_is_away() {
    let server = server().await;
    let (broker, topic) = (connect(&server.url()).await.unwrap(), topic("away"));
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..1).await;
    let held = next(&mut source).await;
    let server = blocking(move || {
        server.kill();
        server
    })
    .await;
    tokio::time::sleep(WHILE).await;
    let waiting = broker.enqueue(&topic, message("never"));
    timeout(Duration::from_secs(5), broker.close()).await.expect("closes").unwrap();
    let error = waiting.await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Closed, PublishOutcome::NotSent));
    assert_eq!(ack(held).await.unwrap_err().kind(), ErrorKind::SettlementLost);
    the_end(&mut source).await;
    drop(server);
}
