//! Servers that are killed, paused and restarted under load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use traced_broker::driver::{Disposition, Driver, DriverExt, Inbound};
use traced_broker::{ErrorKind, PublishOutcome, Subscription};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loses_nothing_confirmed_over_three_kills() {
    const COUNT: usize = 6_000;
    let server = Arc::new(server().await);
    let (broker, topic) = (Arc::new(connect(&server.url()).await.unwrap()), topic("killed"));
    let mut source = broker.subscribe(&of_group(&topic, "g").prefetch(100)).await.unwrap();
    let publishing = tokio::spawn({
        let (broker, topic) = (Arc::clone(&broker), topic.clone());
        async move {
            let (mut confirmed, mut not_sent) = (Vec::new(), Vec::new());
            for first in (0..COUNT).step_by(100) {
                let publishes: Vec<_> =
                    (first..first + 100).map(|n| (n, broker.enqueue(&topic, message(n.to_string())))).collect();
                for (number, publish) in publishes {
                    match timeout(SOON, publish).await.expect("an answer") {
                        Ok(_) => confirmed.push(number),
                        Err(error) if error.publish_outcome() == PublishOutcome::NotSent => not_sent.push(number),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (confirmed, not_sent)
        }
    });
    let mut delivered: BTreeMap<usize, u32> = BTreeMap::new();
    for kill in 0..3 {
        take(&mut source, &mut delivered, (kill + 1) * COUNT / 10).await;
        let server = Arc::clone(&server);
        blocking(move || {
            server.kill();
            server.restart();
        })
        .await;
    }
    while !publishing.is_finished() {
        let count = delivered.len() + 1;
        let _ = timeout(WHILE, take(&mut source, &mut delivered, count)).await;
    }
    let (confirmed, not_sent) = publishing.await.unwrap();
    while !confirmed.iter().all(|number| delivered.contains_key(number)) {
        let count = delivered.len() + 1;
        take(&mut source, &mut delivered, count).await;
    }
    assert!(confirmed.len() > COUNT / 2, "{} confirmed", confirmed.len());
    assert!(not_sent.iter().all(|number| !delivered.contains_key(number)), "what was not sent did not arrive");
    assert!(delivered.values().all(|times| *times <= 4), "once, and once more for each kill at most");
    broker.close().await.unwrap();
    let left = Raw::at(&server.url()).await.pending(&topic, "g").await;
    assert!(left.is_empty(), "all that was acknowledged stays so: {left:?}");
}

/// Receives and acknowledges until `count` different messages have arrived.
async fn take(source: &mut traced_broker::driver::Source, delivered: &mut BTreeMap<usize, u32>, count: usize) {
    while delivered.len() < count {
        let message: Inbound = next_message(source).await;
        *delivered.entry(text(&message).parse().unwrap()).or_default() += 1;
        match message.handle.settle(Disposition::Ack).await {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::SettlementLost, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_on_after_a_restart_while_idle() {
    let server = server().await;
    let (broker, topic) = (connect(&server.url()).await.unwrap(), topic("idle"));
    let mut group = subscribe(&broker, &topic, "g").await;
    let mut once = broker.subscribe(&of_group(&topic, "once").at_most_once()).await.unwrap();
    let mut reader = broker.subscribe(&Subscription::new(&*topic)).await.unwrap();
    publish_numbers(&broker, &topic, 0..2).await;
    let held = next(&mut group).await;
    assert_eq!(text(&next(&mut group).await), "1");
    assert_eq!(text(&next(&mut reader).await), "0");
    assert_eq!(drain(&mut once, 2).await, numbers(0..2));
    let server = blocking(move || {
        server.kill();
        server.restart();
        server
    })
    .await;
    // Without a report: the loss was noticed while no command was in flight.
    publish_numbers(&broker, &topic, 2..4).await;
    broker.ping().await.unwrap();
    drop(held);
    let mut seen = BTreeSet::new();
    while seen.len() < 4 {
        let message = next_message(&mut group).await;
        assert_eq!(message.attempt, 1);
        seen.insert(text(&message));
        ack(message).await.unwrap();
    }
    assert_eq!(seen, numbers(0..4).into_iter().collect::<BTreeSet<_>>());
    assert_eq!(drain(&mut reader, 3).await, numbers(1..4), "a reader goes on after the last message it read");
    assert_eq!(drain(&mut once, 2).await, numbers(2..4));
    broker.close().await.unwrap();
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_wait_for_the_server_and_not_for_ever() {
    let server = server().await;
    let broker = connect(&format!("{}?connect_timeout=1500", server.url())).await.unwrap();
    let topic = topic("wait");
    publish(&broker, &topic, message("before")).await.unwrap();
    let server = blocking(move || {
        server.kill();
        server
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = publish(&broker, &topic, message("gives up")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::NotSent), "{error}");
    let waiting = broker.enqueue(&topic, message("waits"));
    let server = blocking(move || {
        server.restart();
        server
    })
    .await;
    // Depending on the moment it failed with an attempt, or waited for the attempt that succeeded.
    let waited = timeout(SOON, waiting).await.expect("an answer");
    publish(&broker, &topic, message("after")).await.unwrap();
    let stored: usize = Raw::at(&server.url()).await.run(&["XLEN", &topic]).await;
    assert_eq!(stored, 2 + usize::from(waited.is_ok()));
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_was_on_its_way_is_of_unknown_outcome() {
    let server = server().await;
    let (broker, topic) = (connect(&server.url()).await.unwrap(), topic("unknown"));
    publish(&broker, &topic, message("before")).await.unwrap();
    let server = blocking(move || {
        server.pause();
        server
    })
    .await;
    let publishes: Vec<_> = (0..100).map(|number| broker.enqueue(&topic, message(number.to_string()))).collect();
    tokio::time::sleep(WHILE).await;
    let server = blocking(move || {
        server.kill();
        server.restart();
        server
    })
    .await;
    let mut outcomes = Vec::new();
    for publish in publishes {
        let answer = timeout(SOON, publish).await.expect("an answer");
        outcomes.push(answer.map(drop).map_err(|error| (error.kind(), error.publish_outcome())));
    }
    let unknown = Err((ErrorKind::Unavailable, PublishOutcome::Unknown));
    let lost = outcomes.iter().take_while(|outcome| **outcome == unknown).count();
    assert!(lost > 0, "{outcomes:?}");
    assert!(
        outcomes[lost..].iter().all(Result::is_ok),
        "what was queued went to the server that came back: {outcomes:?}"
    );
    let stored: usize = Raw::at(&server.url()).await.run(&["XLEN", &topic]).await;
    assert_eq!(stored, 1 + 100 - lost);
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_pauses_is_waited_for() {
    let server = server().await;
    let (broker, topic) = (connect(&server.url()).await.unwrap(), topic("pause"));
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..1).await;
    let held = next(&mut source).await;
    let server = blocking(move || {
        server.pause();
        server
    })
    .await;
    let publishing = broker.enqueue(&topic, message("1"));
    let settling = held.handle.settle(Disposition::Ack);
    let server = blocking(move || {
        std::thread::sleep(Duration::from_secs(2));
        server.resume();
        server
    })
    .await;
    timeout(SOON, publishing).await.expect("an answer").unwrap();
    timeout(SOON, settling).await.expect("an answer").unwrap();
    assert_eq!(text(&next(&mut source).await), "1", "and nothing was reported");
    broker.close().await.unwrap();
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_silent_for_too_long_is_left() {
    let server = server().await;
    let broker = connect(&format!("{}?response_timeout=500&connect_timeout=500", server.url())).await.unwrap();
    let topic = topic("silent");
    let mut source = subscribe(&broker, &topic, "g").await;
    publish(&broker, &topic, message("0")).await.unwrap();
    let held = next(&mut source).await;
    let server = blocking(move || {
        server.pause();
        server
    })
    .await;
    let publishing = broker.enqueue(&topic, message("1"));
    let settling = held.handle.settle(Disposition::Ack);
    let error = timeout(SOON, publishing).await.expect("an answer").unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Timeout, PublishOutcome::Unknown), "{error}");
    let error = broker.ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let server = blocking(move || {
        server.resume();
        server
    })
    .await;
    eventually("the server is back", || async { broker.ping().await.is_ok() }).await;
    // The settlement waited for the server. If it was executed already, its outcome is unknown.
    if let Err(error) = timeout(SOON, settling).await.expect("an answer") {
        assert_eq!(error.kind(), ErrorKind::SettlementLost, "{error}");
    }
    publish(&broker, &topic, message("2")).await.unwrap();
    // The server executed the commands that it had already read: 0 may be settled, 1 may be stored.
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "2") {
        let message = next_message(&mut source).await;
        seen.push(text(&message));
        ack(message).await.unwrap();
    }
    broker.close().await.unwrap();
    drop(server);
}

/// A server that closes silent connections does not take a message from a slow handler.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handler_outlives_its_connection() {
    let server = server().await;
    let (broker, topic) = (connect(&server.url()).await.unwrap(), topic("timeout"));
    let mut raw = Raw::at(&server.url()).await;
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..1).await;
    let slow = next(&mut source).await;
    let _: () = raw.run(&["CONFIG", "SET", "timeout", "1"]).await;
    let trouble = next_within(&mut source, SOON).await.expect("a report").unwrap_err();
    assert_eq!(trouble.kind(), ErrorKind::Unavailable, "{trouble}");
    ack(slow).await.unwrap();
    nothing_comes(&mut source).await;
    broker.close().await.unwrap();
}

/// Members that stood still, because the server did, let each other renew first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_pauses_for_long_moves_nothing() {
    let server = server().await;
    let (mut members, topic) = (Vec::new(), topic("stall"));
    for _ in 0..4 {
        let broker = connect(&format!("{}?claim_idle=1000", server.url())).await.unwrap();
        let source = broker.subscribe(&of_group(&topic, "g").prefetch(40)).await.unwrap();
        members.push((broker, source));
    }
    publish_numbers(&members[0].0, &topic, 0..80).await;
    let mut held = Vec::new();
    while held.len() < 80 {
        for (_, source) in &mut members {
            held.extend(next_within(source, Duration::from_millis(20)).await.map(|item| item.unwrap()));
        }
    }
    let mut server = server;
    for _ in 0..2 {
        server = blocking(move || {
            server.pause();
            std::thread::sleep(Duration::from_millis(1300));
            server.resume();
            server
        })
        .await;
        for (_, source) in &mut members {
            nothing_comes(source).await;
        }
    }
    for message in held {
        ack(message).await.unwrap();
    }
    for (broker, _) in members {
        broker.close().await.unwrap();
    }
    drop(server);
}
