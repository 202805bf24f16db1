//! Duties of a group member besides reading: keeping its deliveries, taking over abandoned ones,
//! repairing the group.

use std::time::Duration;

use traced_broker::ErrorKind;
use traced_broker::driver::Driver;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_what_it_holds_for_as_long_as_it_takes() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("renew"));
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..1).await;
    let slow = next(&mut source).await;
    let mut other = subscribe(&broker, &topic, "g").await;
    if let Some(item) = next_within(&mut other, Duration::from_secs(2)).await {
        panic!("taken over from a member that works on it: {item:?}");
    }
    // Also when the original subscription is no longer polled.
    drop(source);
    if let Some(item) = next_within(&mut other, Duration::from_secs(2)).await {
        panic!("taken over from a member that works on it: {item:?}");
    }
    let pending = Raw::new().await.pending(&topic, "g").await;
    assert_eq!(pending[0].3, 1, "keeping is not counted as a delivery");
    ack(slow).await.unwrap();
    assert!(Raw::new().await.pending(&topic, "g").await.is_empty());
    broker.close().await.unwrap();
}

/// Handlers that compute, on a runtime of one thread, do not keep the member from renewing.
#[test]
fn keeps_what_it_holds_while_its_runtime_is_blocked() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (busy, idle) = (runtime(), runtime());
    let topic = topic("blocked");
    let (broker, held) = busy.block_on(async {
        let broker = broker_with("?claim_idle=400").await;
        let mut source = subscribe(&broker, &topic, "g").await;
        publish_numbers(&broker, &topic, 0..20).await;
        (broker, (next(&mut source).await, source))
    });
    // The first runtime does nothing while this one runs.
    idle.block_on(async {
        let other = broker_with("?claim_idle=400").await;
        let mut source = subscribe(&other, &topic, "g").await;
        if let Some(item) = next_within(&mut source, Duration::from_secs(2)).await {
            panic!("taken over from a member that works on it: {item:?}");
        }
        other.close().await.unwrap();
    });
    busy.block_on(async {
        let (first, mut source) = held;
        ack(first).await.unwrap();
        assert_eq!(drain(&mut source, 19).await, numbers(1..20));
        broker.close().await.unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_over_what_a_dead_member_left() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("dead"));
    let mut raw = Raw::new().await;
    let _: () = raw.run(&["XGROUP", "CREATE", &topic, "g", "0", "MKSTREAM"]).await;
    publish_numbers(&broker, &topic, 0..700).await;
    for _ in 0..2 {
        let read = ["XREADGROUP", "GROUP", "g", "dead", "COUNT", "650", "STREAMS", &*topic, ">"];
        let _: ::redis::Value = raw.run(&read).await;
    }
    // The first of them was handed out three times.
    let first = raw.pending(&topic, "g").await[0].0.clone();
    let _: ::redis::Value = raw.run(&["XCLAIM", &topic, "g", "dead", "0", &first]).await;
    let _: ::redis::Value = raw.run(&["XCLAIM", &topic, "g", "dead", "0", &first]).await;
    let mut source = broker.subscribe(&of_group(&topic, "g").prefetch(100)).await.unwrap();
    nothing_comes_yet(&mut source).await;
    let mut deliveries = std::collections::BTreeMap::new();
    while deliveries.len() < 700 {
        let message = next(&mut source).await;
        assert_eq!(message.attempt, 1, "no attempt has failed");
        let again = deliveries.insert(text(&message).parse::<usize>().unwrap(), message.deliveries.unwrap());
        assert_eq!(again, None, "handed out twice: {}", text(&message));
        ack(message).await.unwrap();
    }
    assert_eq!(deliveries.remove(&0), Some(4), "handed out three times before");
    assert!(deliveries.values().all(|count| *count == 2), "{deliveries:?}");
    nothing_comes(&mut source).await;
    assert!(raw.pending(&topic, "g").await.is_empty());
    broker.close().await.unwrap();
}

/// Asserts that no item arrives for less than `claim_idle`.
async fn nothing_comes_yet(source: &mut traced_broker::driver::Source) {
    if let Some(item) = next_within(source, Duration::from_millis(150)).await {
        panic!("too early: {item:?}");
    }
}

#[tokio::test]
async fn a_handle_that_is_dropped_gives_its_message_back() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("dropped"));
    let mut source = broker.subscribe(&of_group(&topic, "g").prefetch(1)).await.unwrap();
    publish_numbers(&broker, &topic, 0..1).await;
    drop(next(&mut source).await);
    let again = next(&mut source).await;
    assert_eq!((text(&again), again.attempt, again.deliveries), ("0".to_owned(), 1, Some(2)));
    // From here on it is kept like any other delivery.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(Raw::new().await.pending(&topic, "g").await[0].3, 2);
    ack(again).await.unwrap();
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_what_was_trimmed_before_it_was_handled() {
    let server = server().await;
    let broker = connect(&format!("{}?claim_idle=400", server.url())).await.unwrap();
    let topic = topic("trimmed");
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..3).await;
    let own = next(&mut source).await;
    let (kept, deleted) = (own.id.clone().unwrap(), next(&mut source).await.id.unwrap());
    ack(next(&mut source).await).await.unwrap();
    let mut raw = Raw::at(&server.url()).await;

    // Deleted from this member, which notices it when it reads its own entries again.
    let _: i64 = raw.run(&["XDEL", &topic, &deleted]).await;
    raw.break_connections().await;
    let lost = next_trouble(&mut source).await;
    assert_eq!((lost.kind(), context(&lost, "ids")), (ErrorKind::NotFound, deleted));
    drop(own);
    let again = next_message(&mut source).await;
    assert_eq!(again.id, Some(kept));
    ack(again).await.unwrap();
    assert!(raw.pending(&topic, "g").await.is_empty());

    // Deleted from another member, noticed when the entry is claimed.
    let foreign: String = raw.run(&["XADD", &topic, "*", "payload", "x"]).await;
    let read = ["XREADGROUP", "GROUP", "g", "dead", "STREAMS", &*topic, ">"];
    if raw.run::<::redis::Value>(&read).await != ::redis::Value::Nil {
        let _: i64 = raw.run(&["XDEL", &topic, &foreign]).await;
        let lost = next_trouble(&mut source).await;
        assert_eq!((lost.kind(), context(&lost, "ids")), (ErrorKind::NotFound, foreign));
    }
    publish_numbers(&broker, &topic, 5..6).await;
    assert!(drain(&mut source, 1).await.len() == 1, "it goes on");
    broker.close().await.unwrap();
}

/// Returns the next report, skipping those of the lost connection.
async fn next_trouble(source: &mut traced_broker::driver::Source) -> traced_broker::Error {
    loop {
        match next_within(source, SOON).await.expect("a report") {
            Err(error) if error.kind() != ErrorKind::Unavailable => return error,
            Err(_) => {}
            Ok(message) => panic!("a message: {message:?}"),
        }
    }
}

fn context(error: &traced_broker::Error, name: &str) -> String {
    error.context().find(|(key, _)| *key == name).unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removes_consumers_that_are_gone_and_left_nothing() {
    let (broker, topic) = (broker_with("?claim_idle=100").await, topic("tidy"));
    drop(subscribe(&broker, &topic, "g").await);
    publish_numbers(&broker, &topic, 0..1).await;
    let mut raw = Raw::new().await;
    let gone = ["traced-broker-1-0000000000000001", "traced-broker-1-0000000000000002", "someone-else"];
    let read = ["XREADGROUP", "GROUP", "g", gone[0], "STREAMS", &*topic, ">"];
    let _: ::redis::Value = raw.run(&read).await;
    for name in gone {
        let _: i64 = raw.run(&["XGROUP", "CREATECONSUMER", &topic, "g", name]).await;
    }
    // One has a pending entry until it is taken over; after that there is no reason to keep the
    // consumer.
    let mut source = subscribe(&broker, &topic, "g").await;
    let own = next(&mut source).await;
    eventually("those that are gone are removed", || async {
        let consumers = Raw::new().await.consumers(&topic, "g").await;
        consumers.len() == 2 && consumers.iter().any(|name| name == "someone-else")
    })
    .await;
    ack(own).await.unwrap();
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_removes_a_consumer_with_something_pending() {
    let (broker, topic) = (broker_with("?claim_idle=100").await, topic("pending"));
    let mut source = broker.subscribe(&of_group(&topic, "g").prefetch(1)).await.unwrap();
    publish_numbers(&broker, &topic, 0..2).await;
    let own = next(&mut source).await;
    let mut raw = Raw::new().await;
    let read = ["XREADGROUP", "GROUP", "g", "traced-broker-1-0000000000000003", "STREAMS", &*topic, ">"];
    let _: ::redis::Value = raw.run(&read).await;
    // For longer than the idle limit there is no room to claim the entry.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let pending = raw.pending(&topic, "g").await;
    assert_eq!(pending.len(), 2, "{pending:?}");
    assert_eq!(raw.consumers(&topic, "g").await.len(), 2);
    ack(own).await.unwrap();
    assert_eq!(drain(&mut source, 1).await, ["1"]);
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn makes_a_group_again_that_was_destroyed() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("destroyed"));
    let mut durable = subscribe(&broker, &topic, "durable").await;
    let mut once = broker.subscribe(&of_group(&topic, "once").at_most_once()).await.unwrap();
    let mut late = broker.subscribe(&of_group(&topic, "late").start(traced_broker::Start::Latest)).await.unwrap();
    publish_numbers(&broker, &topic, 0..1).await;
    assert_eq!(drain(&mut durable, 1).await, ["0"]);
    assert_eq!(drain(&mut once, 1).await, ["0"]);
    assert_eq!(drain(&mut late, 1).await, ["0"]);
    let mut raw = Raw::new().await;
    // Same effect as a flush on one stream, including its groups.
    let _: i64 = raw.run(&["DEL", &topic]).await;
    publish_numbers(&broker, &topic, 1..3).await;
    for source in [&mut durable, &mut once, &mut late] {
        assert_eq!(drain(source, 2).await, numbers(1..3));
    }
    let _: i64 = raw.run(&["XGROUP", "DESTROY", &topic, "durable"]).await;
    publish_numbers(&broker, &topic, 3..4).await;
    // Those before may come again: they were settled a moment ago.
    while drain(&mut durable, 1).await != ["3"] {}
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_for_a_group_that_it_may_not_make() {
    let (lax, topic) = (broker().await, topic("awaited"));
    drop(subscribe(&lax, &topic, "g").await);
    let strict = broker_with("?topology=check&claim_idle=400").await;
    let mut source = subscribe(&strict, &topic, "g").await;
    let mut raw = Raw::new().await;
    let _: i64 = raw.run(&["XGROUP", "DESTROY", &topic, "g"]).await;
    let trouble = next_within(&mut source, SOON).await.expect("a report").unwrap_err();
    assert_eq!(trouble.kind(), ErrorKind::NotFound, "{trouble}");
    nothing_comes(&mut source).await;
    publish(&lax, &topic, message("x")).await.unwrap();
    let _: () = raw.run(&["XGROUP", "CREATE", &topic, "g", "0"]).await;
    assert_eq!(drain(&mut source, 1).await, ["x"]);
    strict.close().await.unwrap();
}
