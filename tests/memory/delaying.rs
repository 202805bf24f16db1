//! Messages that are delivered later than they are published.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use traced_broker::adapters::memory::Memory;
use traced_broker::driver::{DriverExt, Outbound};
use traced_broker::{Broker, Deliveries, Message, Start, Subscription, Topic, TracedBroker, connect};

use super::driving::{drain, next, silent};

async fn delayed(broker: &Broker, payload: &str, milliseconds: u64) -> SystemTime {
    let time = SystemTime::now() + Duration::from_millis(milliseconds);
    let receipt = broker.publish("t", Message::new(payload.to_owned()).deliver_at(time)).await.unwrap();
    assert_eq!((receipt.confirmed, receipt.offset), (true, None), "kept, with no place among the visible yet");
    time
}

async fn group(broker: &Broker) -> Deliveries {
    broker.subscribe(Subscription::new("t").group("g")).await.unwrap()
}

#[tokio::test]
async fn a_delayed_message_comes_at_its_time_and_behind_those_published_meanwhile() {
    let broker = connect("memory://delaying").await.unwrap();
    let mut deliveries = group(&broker).await;
    let third = delayed(&broker, "third", 600).await;
    let second = delayed(&broker, "second", 300).await;
    delayed(&broker, "second too", 300).await;
    broker.publish("t", Message::new("first")).await.unwrap();
    assert_eq!(drain(&mut deliveries, 1).await, ["first"], "not held up by what is delayed");
    for (payload, time) in [("second", Some(second)), ("second too", None), ("third", Some(third))] {
        let delivery = next(&mut deliveries).await;
        let stamp = delivery.message().timestamp().unwrap().time;
        assert_eq!((delivery.message().payload(), delivery.message().attempt()), (&payload.into(), 1));
        if let Some(time) = time {
            assert_eq!(stamp, time, "stamped with when it became visible");
        }
        let late = SystemTime::now().duration_since(stamp).expect("not before its time");
        assert!(late < Duration::from_secs(2), "{late:?} late");
        delivery.ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_delayed_message_is_for_groups_and_readers_that_came_after_it_too() {
    let broker = connect("memory://delaying-for-later").await.unwrap();
    delayed(&broker, "delayed", 200).await;
    broker.publish("t", Message::new("at once")).await.unwrap();
    let mut reader = broker.subscribe(Subscription::new("t")).await.unwrap();
    let mut latest = broker.subscribe(Subscription::new("t").group("l").start(Start::Latest)).await.unwrap();
    let mut earliest = group(&broker).await;
    assert_eq!(drain(&mut reader, 1).await, ["delayed"]);
    assert_eq!(drain(&mut latest, 1).await, ["delayed"]);
    assert_eq!(drain(&mut earliest, 2).await, ["at once", "delayed"]);
}

#[tokio::test]
async fn messages_of_one_time_come_in_the_order_they_were_published_in() {
    let broker = connect("memory://delaying-ties").await.unwrap();
    let time = SystemTime::now() + Duration::from_millis(100);
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for payload in &expected {
        broker.publish("t", Message::new(payload.clone()).deliver_at(time)).await.unwrap();
    }
    assert_eq!(drain(&mut group(&broker).await, 20).await, expected);
}

/// Starts a member that waits in a separate task.
async fn idle(broker: &Broker, count: usize) -> tokio::task::JoinHandle<Vec<String>> {
    let mut deliveries = group(broker).await;
    let idle = tokio::spawn(async move { drain(&mut deliveries, count).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    idle
}

#[tokio::test]
async fn an_idle_member_sees_to_it_in_time_when_another_looks_away() {
    let broker = connect("memory://delaying-members").await.unwrap();
    // The first in line to be woken, and never polled again.
    let mut away = group(&broker).await;
    let away = tokio::spawn(async move {
        silent(&mut away).await;
        away
    });
    let _away = away.await.unwrap();
    let idle = idle(&broker, 1).await;
    delayed(&broker, "x", 100).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), idle).await.expect("woken").unwrap(), ["x"]);
}

#[tokio::test]
async fn an_idle_member_wakes_up_for_what_is_due_sooner() {
    let broker = connect("memory://delaying-sooner").await.unwrap();
    let idle = idle(&broker, 2).await;
    delayed(&broker, "late", 1000).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let soon = delayed(&broker, "soon", 100).await;
    while !idle.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(idle.await.unwrap(), ["soon", "late"]);
    assert!(soon.elapsed().unwrap() > Duration::from_millis(500), "both came, each in its time");
}

#[tokio::test]
async fn delayed_messages_take_room_until_they_are_visible_and_settled() {
    let broker = connect("memory://delaying-full?capacity=2").await.unwrap();
    delayed(&broker, "a", 300).await;
    delayed(&broker, "b", 600_000).await;
    // The group is not read: a visible message can be dropped, a delayed one cannot.
    let before = SystemTime::now();
    broker.publish("t", Message::new("c")).await.unwrap();
    assert!(before.elapsed().unwrap() > Duration::from_millis(200), "waited for the first to become visible");
    let mut deliveries = group(&broker).await;
    assert_eq!(drain(&mut deliveries, 1).await, ["c"], "the visible one made room");
    silent(&mut deliveries).await;
}

#[tokio::test]
async fn what_waits_for_room_sees_a_delayed_message_that_was_let_in_before_it() {
    let broker = connect("memory://delaying-queue?capacity=1").await.unwrap();
    let mut deliveries = group(&broker).await;
    broker.publish("t", Message::new("first")).await.unwrap();
    let mut second = broker.publish("t", Message::new("second").delay(Duration::from_millis(300)));
    let mut third = broker.publish("t", Message::new("third"));
    let quickly = Duration::from_millis(20);
    assert!(tokio::time::timeout(quickly, &mut second).await.is_err(), "waits for room");
    assert!(tokio::time::timeout(quickly, &mut third).await.is_err(), "waits for room");
    drain(&mut deliveries, 1).await;
    drop(deliveries);
    broker.reposition(&Subscription::new("t").group("g"), Start::Offset(9)).await.unwrap();
    second.await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), third).await.expect("let in as the second can be dropped").unwrap();
}

#[tokio::test]
async fn a_time_beyond_every_clock_is_waited_for() {
    let driver = Memory::new();
    let topic = Topic::new("t").unwrap();
    let far = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(i64::MAX as u64)).unwrap();
    for deliver_at in [Some(far), Some(SystemTime::UNIX_EPOCH), None] {
        driver.enqueue(&topic, Outbound { deliver_at, ..Outbound::new("x") }).await.unwrap();
    }
    let broker = traced_broker::Traced::new(driver);
    let mut deliveries = broker.subscribe(Subscription::new("t").group("g")).await.unwrap();
    assert_eq!(drain(&mut deliveries, 2).await.len(), 2, "of a time that is past, at once");
    silent(&mut deliveries).await;
    broker.publish("t", Message::new("retried")).await.unwrap();
    deliveries.next().await.unwrap().unwrap().retry(Duration::MAX).await.unwrap();
    silent(&mut deliveries).await;
}
