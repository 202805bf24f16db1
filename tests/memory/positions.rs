//! Start positions of groups and readers, and groups that are moved.

use std::time::{Duration, SystemTime};

use traced_broker::{Broker, Deliveries, ErrorKind, Message, Start, Subscription, TracedBroker, connect};

use super::driving::{drain, next, silent};

async fn filled(name: &str, count: u64) -> Broker {
    let broker = connect(format!("memory://{name}?capacity=10")).await.unwrap();
    for number in 0..count {
        let receipt = broker.publish("t", Message::new(number.to_string())).await.unwrap();
        assert_eq!(receipt.offset, i64::try_from(number).ok());
    }
    broker
}

async fn from(broker: &Broker, start: Start) -> [Deliveries; 2] {
    let reader = Subscription::new("t").start(start);
    let group = reader.clone().group(format!("{start:?}").replace(|letter: char| !letter.is_alphanumeric(), "-"));
    [broker.subscribe(reader).await.unwrap(), broker.subscribe(group).await.unwrap()]
}

#[tokio::test]
async fn begins_at_an_offset() {
    let broker = filled("at-offset", 12).await;
    for mut deliveries in from(&broker, Start::Offset(9)).await {
        assert_eq!(drain(&mut deliveries, 3).await, ["9", "10", "11"]);
    }
    for mut deliveries in from(&broker, Start::Offset(1)).await {
        assert_eq!(drain(&mut deliveries, 2).await, ["2", "3"], "1 is gone");
    }
}

#[tokio::test]
async fn waits_for_an_offset_that_is_still_to_come() {
    let broker = filled("at-offset-to-come", 2).await;
    let mut both = from(&broker, Start::Offset(3)).await;
    for payload in ["2", "3"] {
        broker.publish("t", Message::new(payload)).await.unwrap();
    }
    for deliveries in &mut both {
        assert_eq!(drain(deliveries, 1).await, ["3"]);
    }
}

#[tokio::test]
async fn begins_at_a_time() {
    let broker = filled("at-time", 3).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let time = SystemTime::now();
    broker.publish("t", Message::new("after")).await.unwrap();
    for mut deliveries in from(&broker, Start::Time(time)).await {
        assert_eq!(drain(&mut deliveries, 1).await, ["after"]);
    }
    for mut deliveries in from(&broker, Start::Time(SystemTime::UNIX_EPOCH)).await {
        assert_eq!(drain(&mut deliveries, 4).await, ["0", "1", "2", "after"]);
    }
    let mut both = from(&broker, Start::Time(SystemTime::now() + Duration::from_secs(60))).await;
    broker.publish("t", Message::new("next")).await.unwrap();
    for deliveries in &mut both {
        assert_eq!(drain(deliveries, 1).await, ["next"]);
    }
}

#[tokio::test]
async fn moves_a_group_back_and_forth_while_members_read() {
    let broker = filled("moved", 4).await;
    let group = Subscription::new("t").group("g");
    let mut deliveries = broker.subscribe(group.clone()).await.unwrap();
    assert_eq!(drain(&mut deliveries, 4).await, ["0", "1", "2", "3"]);
    silent(&mut deliveries).await;
    for (start, expected) in [
        (Start::Earliest, &["0", "1", "2", "3"][..]),
        (Start::Offset(2), &["2", "3"]),
        (Start::Time(SystemTime::UNIX_EPOCH), &["0", "1", "2", "3"]),
    ] {
        broker.reposition(&group, start).await.unwrap();
        assert_eq!(drain(&mut deliveries, expected.len()).await, expected, "{start:?}");
    }
    broker.reposition(&group, Start::Offset(1)).await.unwrap();
    broker.reposition(&group, Start::Latest).await.unwrap();
    silent(&mut deliveries).await;
    let other = broker.subscribe(Subscription::new("t").group("other")).await.unwrap();
    broker.reposition(&group, Start::Offset(3)).await.unwrap();
    assert_eq!(drain(&mut { other }, 4).await, ["0", "1", "2", "3"], "other groups stay where they are");
}

#[tokio::test]
async fn what_members_hold_when_a_group_is_moved_is_lost_and_settles_nothing() {
    let broker = filled("moved-from-under", 3).await;
    let group = Subscription::new("t").group("g");
    let mut deliveries = broker.subscribe(group.clone().prefetch(2)).await.unwrap();
    let acked = next(&mut deliveries).await;
    next(&mut deliveries).await.retry(Duration::from_secs(600)).await.unwrap();
    broker.reposition(&group, Start::Earliest).await.unwrap();

    let again = next(&mut deliveries).await;
    assert_eq!((again.message().offset(), again.message().attempt()), (Some(0), 1), "counted anew");
    // The same message, attempt and connection: only the move distinguishes them.
    assert_eq!(acked.ack().await.unwrap_err().kind(), ErrorKind::SettlementLost);
    again.retry(Duration::ZERO).await.unwrap();
    assert_eq!(drain(&mut deliveries, 3).await, ["0", "1", "2"], "the retry that waited is forgotten");
    silent(&mut deliveries).await;
}

#[tokio::test]
async fn moving_makes_a_group_but_no_topic() {
    let broker = filled("moved-before", 3).await;
    let group = Subscription::new("t").group("new");
    broker.reposition(&group, Start::Offset(2)).await.unwrap();
    assert_eq!(drain(&mut broker.subscribe(group).await.unwrap(), 1).await, ["2"]);
    let kind = |topic: &'static str, group: Option<&'static str>| {
        let subscription = Subscription::new(topic);
        let subscription = group.map_or(subscription.clone(), |group| subscription.group(group));
        let broker = &broker;
        async move { broker.reposition(&subscription, Start::Earliest).await.unwrap_err().kind() }
    };
    assert_eq!(kind("missing", Some("g")).await, ErrorKind::NotFound);
    assert_eq!(kind("t", None).await, ErrorKind::InvalidConfig);
    broker.close().await.unwrap();
    assert_eq!(kind("t", Some("g")).await, ErrorKind::Closed);
}

#[tokio::test]
async fn moving_the_slowest_group_makes_room() {
    let broker = filled("moved-on", 10).await;
    let group = Subscription::new("t").group("slow");
    drop(broker.subscribe(group.clone()).await.unwrap());
    let mut publish = broker.publish("t", Message::new("x"));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut publish).await.is_err(), "waits for room");
    broker.reposition(&group, Start::Latest).await.unwrap();
    publish.await.unwrap();
}
