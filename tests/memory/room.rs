//! The room of a topic: who takes it up, and who gets the messages that are there.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;
use traced_broker::{
    Broker, Deliveries, ErrorKind, Message, PublishOutcome, Start, Subscription, TracedBroker, connect,
};

use super::driving::{drain, next, silent};

async fn group(broker: &Broker, name: &str) -> Deliveries {
    broker.subscribe(Subscription::new("t").group(name)).await.unwrap()
}

async fn publish(broker: &Broker, payload: impl ToString) {
    timeout(Duration::from_secs(10), broker.publish("t", Message::new(payload.to_string()))).await.unwrap().unwrap();
}

/// A member that was asked for, and then looks at something else, holds no message up.
#[tokio::test]
async fn an_idle_member_gets_a_message_while_another_looks_away() {
    let broker = connect("memory://looks-away").await.unwrap();
    let mut away = group(&broker, "g").await;
    // The first in line, in a task that goes on with other work.
    let away = tokio::spawn(async move {
        silent(&mut away).await;
        away
    });
    let _away = away.await.unwrap();
    let mut idle = group(&broker, "g").await;
    let idle = tokio::spawn(async move { drain(&mut idle, 1).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    publish(&broker, 0).await;
    assert_eq!(timeout(Duration::from_secs(5), idle).await.expect("woken").unwrap(), ["0"]);
}

/// One message that is not settled takes up one place, not all those of the messages behind it.
#[tokio::test]
async fn one_message_that_is_held_takes_up_one_place() {
    let broker = connect("memory://one-held?capacity=10").await.unwrap();
    let mut slow = group(&broker, "slow").await;
    let mut other = group(&broker, "other").await;
    publish(&broker, "held").await;
    let held = next(&mut slow).await;
    assert_eq!(drain(&mut other, 1).await, ["held"]);
    for number in 0..1000 {
        publish(&broker, number).await;
        assert_eq!(drain(&mut slow, 1).await, [number.to_string()]);
        assert_eq!(drain(&mut other, 1).await, [number.to_string()]);
    }
    // It is still there for its group, and for a new one, in front of the last that are kept.
    drop(held);
    let again = next(&mut slow).await;
    assert_eq!((again.message().payload(), again.message().offset()), (&"held".into(), Some(0)));
    let mut new = group(&broker, "new").await;
    let kept = drain(&mut new, 10).await;
    assert_eq!(kept[0], "held");
    assert_eq!(kept[1..], (991..1000).map(|number| number.to_string()).collect::<Vec<_>>());
    again.ack().await.unwrap();
    broker.reposition(&Subscription::new("t").group("new"), Start::Offset(5)).await.unwrap();
    assert_eq!(drain(&mut new, 1).await, ["991"], "the next one that is kept");
}

/// A group that nobody is a member of any more blocks the others for a time, not for ever.
#[tokio::test]
async fn an_abandoned_group_is_given_up_when_the_topic_is_full() {
    let url = "memory://abandoned-group?capacity=5&group_expiry=1000&delivery_timeout=20000";
    let broker = connect(url).await.unwrap();
    drop(group(&broker, "old-name").await);
    let mut live = group(&broker, "live").await;
    let held = {
        publish(&broker, "held").await;
        next(&mut live).await
    };
    for number in 0..4 {
        publish(&broker, number).await;
    }
    assert_eq!(drain(&mut live, 4).await.len(), 4);
    // Waits until the group counts as abandoned, and no longer.
    for number in 4..20 {
        publish(&broker, number).await;
        assert_eq!(drain(&mut live, 1).await, [number.to_string()]);
    }
    held.ack().await.unwrap();
    // Nothing is given up without need.
    let broker = connect("memory://not-abandoned?capacity=5&group_expiry=100").await.unwrap();
    publish(&broker, "kept").await;
    drop(group(&broker, "late").await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    publish(&broker, "kept too").await;
    assert_eq!(drain(&mut group(&broker, "late").await, 2).await, ["kept", "kept too"]);
}

/// A group with a member that is only slow is not given up.
#[tokio::test]
async fn a_group_with_a_member_is_not_given_up() {
    let broker = connect("memory://slow-member?capacity=2&group_expiry=50&delivery_timeout=500").await.unwrap();
    let mut slow = group(&broker, "g").await;
    publish(&broker, 0).await;
    publish(&broker, 1).await;
    let error = broker.publish("t", Message::new("2")).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Busy, PublishOutcome::NotSent));
    assert_eq!(drain(&mut slow, 2).await, ["0", "1"]);
}

/// The bytes of a topic are bounded, whatever the number of its messages.
#[tokio::test]
async fn a_topic_is_bounded_in_bytes() {
    let broker = connect("memory://bytes?max_bytes=10000&delivery_timeout=300").await.unwrap();
    let large = || Message::new(vec![7; 3000]).header("name", "value");
    for _ in 0..10 {
        broker.publish("unread", large()).await.unwrap();
    }
    let mut unread = broker.subscribe(Subscription::new("unread").group("g")).await.unwrap();
    for _ in 0..3 {
        timeout(Duration::from_secs(5), unread.next()).await.unwrap().unwrap().unwrap().ack().await.unwrap();
    }
    silent(&mut unread).await;

    let mut deliveries = group(&broker, "g").await;
    for _ in 0..3 {
        broker.publish("t", large()).await.unwrap();
    }
    let full = broker.publish("t", large()).await.unwrap_err();
    assert_eq!((full.kind(), full.publish_outcome()), (ErrorKind::Busy, PublishOutcome::NotSent), "{full}");
    next(&mut deliveries).await.ack().await.unwrap();
    broker.publish("t", large()).await.unwrap();
    let never = broker.publish("t", Message::new(vec![7; 10_001])).await.unwrap_err();
    assert_eq!((never.kind(), never.publish_outcome()), (ErrorKind::TooLarge, PublishOutcome::NotSent), "{never}");
    // A delayed message takes up its bytes, too.
    let delayed = broker.publish("later", Message::new(vec![7; 6000]).delay(Duration::from_secs(600)));
    delayed.await.unwrap();
    let full = broker.publish("later", Message::new(vec![7; 6000])).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Busy, "{full}");
}
