//! Start positions of groups and readers, and groups that are moved.

use std::time::{Duration, SystemTime};

use traced_broker::adapters::redis::Redis;
use traced_broker::driver::Driver;
use traced_broker::{ErrorKind, Start, Subscription, Topic};

use crate::harness::*;

/// Publishes ten numbers, and returns a time between the first five and the last five.
async fn publish_halves(broker: &Redis, topic: &Topic) -> SystemTime {
    publish_numbers(broker, topic, 0..5).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let between = SystemTime::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    publish_numbers(broker, topic, 5..10).await;
    between
}

#[tokio::test]
async fn begins_where_it_is_told() {
    let (broker, topic) = (broker().await, topic("begin"));
    let capabilities = broker.capabilities();
    assert!(capabilities.start_at_time && capabilities.reposition && !capabilities.start_at_offset);
    let between = publish_halves(&broker, &topic).await;
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    let starts = [Start::Earliest, Start::Time(SystemTime::UNIX_EPOCH), Start::Time(between), Start::Time(tomorrow)];
    for (place, (start, first)) in starts.into_iter().zip([0, 0, 5, 10]).enumerate() {
        let (group, once) = (format!("group-{place}"), format!("once-{place}"));
        let kinds = [Subscription::new(&*topic), of_group(&topic, &group), of_group(&topic, &once).at_most_once()];
        for subscription in kinds {
            let mut source = broker.subscribe(&subscription.start(start)).await.unwrap();
            assert_eq!(drain(&mut source, 10 - first).await, numbers(first..10), "{start:?}");
        }
    }
    // With a start time in the future, messages stored before that time are skipped.
    let soon = SystemTime::now() + Duration::from_secs(1);
    let subscription = of_group(&topic, "soon").start(Start::Time(soon));
    let mut source = broker.subscribe(&subscription).await.unwrap();
    publish_numbers(&broker, &topic, 10..11).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    publish_numbers(&broker, &topic, 11..12).await;
    assert_eq!(drain(&mut source, 1).await, ["11"]);
    broker.close().await.unwrap();
}

#[tokio::test]
async fn has_no_offsets() {
    let (broker, topic) = (broker().await, topic("offset"));
    publish_numbers(&broker, &topic, 0..1).await;
    for subscription in [Subscription::new(&*topic), of_group(&topic, "g")] {
        let refused = broker.subscribe(&subscription.start(Start::Offset(0))).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    }
    let refused = broker.reposition(&of_group(&topic, "g"), Start::Offset(0)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    broker.close().await.unwrap();
}

#[tokio::test]
async fn moves_a_group() {
    let (broker, topic) = (broker().await, topic("move"));
    let between = publish_halves(&broker, &topic).await;
    let group = of_group(&topic, "g");
    // Moving creates a missing group.
    broker.reposition(&group, Start::Time(between)).await.unwrap();
    let mut source = broker.subscribe(&group).await.unwrap();
    let mut other = subscribe(&broker, &topic, "other").await;
    assert_eq!(drain(&mut source, 5).await, numbers(5..10));
    assert_eq!(drain(&mut other, 10).await, numbers(0..10));
    // A member that waits for new messages notices the move.
    broker.reposition(&group, Start::Earliest).await.unwrap();
    assert_eq!(drain(&mut source, 10).await, numbers(0..10));
    broker.reposition(&group, Start::Time(between)).await.unwrap();
    assert_eq!(drain(&mut source, 5).await, numbers(5..10));
    drop(source);
    // A member that is still leaving could read the next messages and give them back.
    eventually("the member has left", || async { Raw::new().await.consumers(&topic, "g").await.is_empty() }).await;
    publish_numbers(&broker, &topic, 10..12).await;
    broker.reposition(&group, Start::Latest).await.unwrap();
    publish_numbers(&broker, &topic, 12..13).await;
    let mut source = broker.subscribe(&group).await.unwrap();
    assert_eq!(drain(&mut source, 1).await, ["12"]);
    assert_eq!(drain(&mut other, 3).await, numbers(10..13), "no other group is moved");
    broker.close().await.unwrap();
}

#[tokio::test]
async fn says_what_cannot_be_moved() {
    let (broker, checking) = (broker().await, broker_with("?topology=check").await);
    let (there, missing, other) = (topic("there"), topic("missing"), topic("string"));
    publish_numbers(&broker, &there, 0..1).await;
    let _: () = Raw::new().await.run(&["SET", &other, "x"]).await;
    let refused = async |broker: &Redis, topic: &Topic| {
        broker.reposition(&of_group(topic, "g"), Start::Earliest).await.unwrap_err().kind()
    };
    assert_eq!(refused(&broker, &missing).await, ErrorKind::NotFound);
    assert_eq!(refused(&checking, &missing).await, ErrorKind::NotFound);
    assert_eq!(refused(&checking, &there).await, ErrorKind::NotFound);
    assert_eq!(refused(&broker, &other).await, ErrorKind::Conflict);
    assert_eq!(Raw::new().await.run::<usize>(&["EXISTS", &missing]).await, 0, "nothing is made by asking");
    let start = Subscription::new(&*missing).start(Start::Time(SystemTime::UNIX_EPOCH));
    assert_eq!(checking.subscribe(&start).await.unwrap_err().kind(), ErrorKind::NotFound);
    broker.close().await.unwrap();
    assert_eq!(refused(&broker, &there).await, ErrorKind::Closed);
    checking.close().await.unwrap();
}

#[tokio::test]
async fn what_is_pending_stays_pending() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("pending"));
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..3).await;
    let held = [next(&mut source).await, next(&mut source).await, next(&mut source).await];
    broker.reposition(&of_group(&topic, "g"), Start::Latest).await.unwrap();
    let mut raw = Raw::new().await;
    assert_eq!(raw.pending(&topic, "g").await.len(), 3, "nothing is settled by passing it over");
    let [zero, one, two] = held;
    ack(zero).await.unwrap();
    // A dropped delivery is redelivered, however far ahead the group is.
    drop(one);
    let again = next(&mut source).await;
    assert_eq!(text(&again), "1");
    ack(again).await.unwrap();
    // Held deliveries are handed out again after the group is moved back. Either handle settles
    // them, once.
    broker.reposition(&of_group(&topic, "g"), Start::Earliest).await.unwrap();
    let twice = [next(&mut source).await, next(&mut source).await, next(&mut source).await];
    assert_eq!(twice.each_ref().map(text), ["0", "1", "2"]);
    ack(two).await.unwrap();
    let [zero, one, two] = twice;
    assert_eq!(ack(two).await.unwrap_err().kind(), ErrorKind::SettlementLost);
    ack(zero).await.unwrap();
    ack(one).await.unwrap();
    assert!(raw.pending(&topic, "g").await.is_empty());
    broker.close().await.unwrap();
}

#[tokio::test]
async fn what_nobody_holds_is_passed_over() {
    let (broker, member, topic) = (broker().await, broker().await, topic("left"));
    let mut left = broker.subscribe(&of_group(&topic, "g").prefetch(1000)).await.unwrap();
    publish_numbers(&member, &topic, 0..700).await;
    assert_eq!(text(&next(&mut left).await), "0");
    eventually("more than a page is read", || async { Raw::new().await.pending(&topic, "g").await.len() > 500 }).await;
    broker.close().await.unwrap();
    let mut raw = Raw::new().await;
    assert!(raw.pending(&topic, "g").await.len() > 500, "more than a page was left unsettled");
    member.reposition(&of_group(&topic, "g"), Start::Latest).await.unwrap();
    assert!(raw.pending(&topic, "g").await.is_empty());
    let mut source = subscribe(&member, &topic, "g").await;
    publish_numbers(&member, &topic, 700..701).await;
    assert_eq!(drain(&mut source, 1).await, ["700"]);
    nothing_comes(&mut source).await;
    member.close().await.unwrap();
}
