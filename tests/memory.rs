//! Behaviour specific to the embedded broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[path = "memory/delaying.rs"]
mod delaying;
#[path = "memory/driving.rs"]
mod driving;
#[path = "memory/positions.rs"]
mod positions;
#[path = "support/readme.rs"]
mod readme;
#[path = "memory/room.rs"]
mod room;

use std::time::Duration;

use futures_util::StreamExt;
use traced_broker::driver::{Driver, DriverExt, Outbound};
use traced_broker::{ErrorKind, Message, PublishOutcome, Subscription, Topic, TracedBroker, connect};

#[tokio::test]
async fn is_described_in_the_readme() {
    readme::check_column("memory://readme").await;
}

#[tokio::test]
async fn parts_that_connect_by_one_url_meet() {
    let publisher = connect("memory://meeting").await.unwrap();
    let consumer = connect("memory://meeting").await.unwrap();
    let elsewhere = connect("memory://elsewhere").await.unwrap();
    let mut here = consumer.subscribe(Subscription::new("orders").group("g")).await.unwrap();
    let mut there = elsewhere.subscribe(Subscription::new("orders").group("g")).await.unwrap();
    publisher.publish("orders", Message::new("x")).await.unwrap();
    here.next().await.unwrap().unwrap().ack().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(100), there.next()).await.is_err());
}

#[tokio::test]
async fn a_full_topic_holds_publishers_back_until_the_slowest_group_settles() {
    let broker = connect("memory://full?capacity=3").await.unwrap();
    let mut slow = broker.subscribe(Subscription::new("t").group("slow")).await.unwrap();
    for number in 0..3 {
        broker.publish("t", Message::new(number.to_string())).await.unwrap();
    }
    let mut fourth = broker.publish("t", Message::new("3"));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut fourth).await.is_err(), "waits for room");
    slow.next().await.unwrap().unwrap().ack().await.unwrap();
    fourth.await.unwrap();
    for number in 1..4 {
        let delivery = slow.next().await.unwrap().unwrap();
        assert_eq!(delivery.message().payload(), &number.to_string());
        delivery.ack().await.unwrap();
    }
}

#[tokio::test]
async fn closing_refuses_publishes_that_wait_for_room() {
    let (broker, keeper) =
        (connect("memory://refused?capacity=1").await.unwrap(), connect("memory://refused").await.unwrap());
    let mut deliveries = keeper.subscribe(Subscription::new("orders").group("g")).await.unwrap();
    broker.publish("orders", Message::new("stored")).await.unwrap();
    let driver = broker.get_ref();
    let waiting = driver.enqueue(&Topic::new("orders").unwrap(), Outbound::new("no room"));
    driver.close().await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("an answer").unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Closed, PublishOutcome::NotSent));
    assert_eq!(driving::drain(&mut deliveries, 1).await, ["stored"]);
    driving::silent(&mut deliveries).await;
}

#[tokio::test]
async fn a_topic_without_groups_keeps_its_last_messages() {
    let broker = connect("memory://last?capacity=3").await.unwrap();
    for number in 0..10 {
        broker.publish("t", Message::new(number.to_string())).await.unwrap();
    }
    let mut deliveries = broker.subscribe(Subscription::new("t").group("late")).await.unwrap();
    for number in 7..10 {
        let delivery = deliveries.next().await.unwrap().unwrap();
        assert_eq!(delivery.message().payload(), &number.to_string());
        delivery.ack().await.unwrap();
    }
}

#[tokio::test]
async fn refuses_what_does_not_fit() {
    let _anchor = connect("memory://taken?capacity=7").await.unwrap();
    let kind = |url: &'static str| async move { connect(url).await.unwrap_err().kind() };
    assert_eq!(kind("memory://taken?capacity=8").await, ErrorKind::Conflict);
    assert_eq!(kind("memory://x?capacity=0").await, ErrorKind::InvalidConfig);
    assert_eq!(kind("memory://x?capacity=many").await, ErrorKind::InvalidConfig);
    assert_eq!(kind("memory://x?capacity=1&capacity=1").await, ErrorKind::InvalidConfig);
    let unknown = connect("memory://x?size=3").await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::InvalidConfig);
    assert!(unknown.to_string().contains("capacity max_in_flight delivery_timeout topology"), "{unknown}");
    let strict = connect("memory://x?topology=check").await.unwrap();
    assert_eq!(strict.publish("missing", Message::new("x")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(strict.subscribe(Subscription::new("missing")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_loop_of_publishes_lets_others_work() {
    let (done, finished) = std::sync::mpsc::channel();
    // A separate thread: if the loop does not yield, only another thread can notice.
    std::thread::spawn(move || {
        let one_thread = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        one_thread.block_on(async {
            let broker = connect("memory://loop").await.unwrap();
            let publishing = tokio::spawn(async move {
                loop {
                    broker.publish("t", Message::new("x")).await.unwrap();
                }
            });
            tokio::time::sleep(Duration::from_millis(10)).await;
            publishing.abort();
            done.send(()).unwrap();
        });
    });
    finished.recv_timeout(Duration::from_secs(20)).expect("the loop lets the timer fire");
}
