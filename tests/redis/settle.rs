//! Settling: only this member's deliveries, one by one or in bulk, and never those of another
//! member.

use std::time::Duration;

use tokio::time::timeout;
use traced_broker::ErrorKind;
use traced_broker::driver::{Disposition, Driver};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledges_in_bulk() {
    let (broker, topic) = (broker().await, topic("bulk"));
    let mut source = broker.subscribe(&of_group(&topic, "g").prefetch(1000)).await.unwrap();
    for round in 0..3 {
        publish_numbers(&broker, &topic, round * 1000..round * 1000 + 1000).await;
        let mut settlements = Vec::new();
        while settlements.len() < 1000 {
            settlements.push(next(&mut source).await.handle.settle(Disposition::Ack));
        }
        for settlement in settlements {
            settlement.await.unwrap();
        }
        assert!(Raw::new().await.pending(&topic, "g").await.is_empty());
    }
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_outlives_its_connection() {
    let server = server().await;
    let (broker, topic) = (connect(&server.url()).await.unwrap(), topic("lost"));
    let mut raw = Raw::at(&server.url()).await;
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..3).await;
    let held = [next(&mut source).await, next(&mut source).await, next(&mut source).await];
    raw.break_connections().await;
    let trouble = next_within(&mut source, SOON).await.expect("a report").unwrap_err();
    assert_eq!(trouble.kind(), ErrorKind::Unavailable, "{trouble}");
    assert!(std::error::Error::source(&trouble).is_some());

    assert!(held.iter().all(|message| !message.tenure.is_over()));
    for message in held {
        ack(message).await.unwrap();
    }
    assert!(raw.pending(&topic, "g").await.is_empty());
    publish_numbers(&broker, &topic, 3..5).await;
    assert_eq!(drain(&mut source, 2).await, numbers(3..5), "none is handed out again");
    assert_eq!(raw.consumers(&topic, "g").await.len(), 1, "it kept its name");
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_to_be_handed_out_is_not_handed_out_with_a_dead_handle() {
    let server = server().await;
    let (broker, topic) = (connect(&server.url()).await.unwrap(), topic("waiting"));
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..100).await;
    ack(next(&mut source).await).await.unwrap();
    Raw::at(&server.url()).await.break_connections().await;
    tokio::time::sleep(WHILE).await;
    assert_eq!(drain(&mut source, 99).await, numbers(1..100), "each once, and each can be acknowledged");
    nothing_comes(&mut source).await;
    broker.close().await.unwrap();
}

#[tokio::test]
async fn an_acknowledgement_by_somebody_else_is_noticed() {
    let (broker, topic) = (broker().await, topic("stolen"));
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..30).await;
    let mut raw = Raw::new().await;
    let first = next(&mut source).await;
    let _: i64 = raw.run(&["XACK", &topic, "g", first.id.as_deref().unwrap()]).await;
    let second = next(&mut source).await;
    let (lost, settled) = (first.handle.settle(Disposition::Ack), second.handle.settle(Disposition::Ack));
    assert_eq!(lost.await.unwrap_err().kind(), ErrorKind::SettlementLost);
    settled.await.unwrap();
    // In bulk too, only that settlement is reported as lost.
    let mut settlements = Vec::new();
    for number in 0..28 {
        let message = next(&mut source).await;
        if number == 5 {
            let _: i64 = raw.run(&["XACK", &topic, "g", message.id.as_deref().unwrap()]).await;
        }
        settlements.push(message);
    }
    let settlements: Vec<_> = settlements.into_iter().map(|m| m.handle.settle(Disposition::Ack)).collect();
    for (number, settlement) in settlements.into_iter().enumerate() {
        let lost = settlement.await.err().map(|error| error.kind());
        assert_eq!(lost, (number == 5).then_some(ErrorKind::SettlementLost), "of {number}");
    }
    assert!(raw.pending(&topic, "g").await.is_empty());
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_member_took_over_is_left_to_it() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("taken"));
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..2).await;
    let (taken, kept) = (next(&mut source).await, next(&mut source).await);
    let mut raw = Raw::new().await;
    let id = taken.id.clone().unwrap();
    let _: Vec<String> = raw.run(&["XCLAIM", &topic, "g", "thief", "0", &id, "JUSTID"]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // While it looks like a fresh delivery it is settled; after `claim_idle` it is looked up first.
    let keep_alive = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _: Vec<String> = raw.run(&["XCLAIM", &topic, "g", "thief", "0", &id, "JUSTID"]).await;
        }
    };
    keep_alive.await;
    assert_eq!(ack(taken).await.unwrap_err().kind(), ErrorKind::SettlementLost);
    ack(kept).await.unwrap();
    let pending = raw.pending(&topic, "g").await;
    assert_eq!(pending.len(), 1, "{pending:?}");
    assert_eq!((&pending[0].0, &*pending[0].1), (&id, "thief"), "the other member still has it");
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_is_over_when_another_member_claims_it() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("claimed"));
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..2).await;
    let (claimed, kept) = (next(&mut source).await, next(&mut source).await);
    let mut raw = Raw::new().await;
    let id = claimed.id.clone().unwrap();
    let _: Vec<String> = raw.run(&["XCLAIM", &topic, "g", "thief", "0", &id, "JUSTID"]).await;
    timeout(SOON, claimed.tenure.over()).await.expect("it is noticed");
    assert_eq!(raw.pending(&topic, "g").await[0].1, "thief", "it is not taken back");
    assert!(!kept.tenure.is_over(), "the other one is not concerned");
    assert_eq!(ack(claimed).await.unwrap_err().kind(), ErrorKind::SettlementLost);
    ack(kept).await.unwrap();
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_are_over_when_their_group_or_their_broker_is_gone() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("gone"));
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..1).await;
    let destroyed = next(&mut source).await;
    let _: i64 = Raw::new().await.run(&["XGROUP", "DESTROY", &topic, "g"]).await;
    timeout(SOON, destroyed.tenure.over()).await.expect("the group is gone");
    assert_eq!(ack(destroyed).await.unwrap_err().kind(), ErrorKind::SettlementLost);
    let closed = next_message(&mut source).await;
    assert!(!closed.tenure.is_over());
    broker.close().await.unwrap();
    assert!(closed.tenure.is_over());
}
