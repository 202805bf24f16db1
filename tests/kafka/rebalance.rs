//! Partitions that leave a busy member and come back to it, under each way to assign them.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use traced_broker::adapters::kafka::{GroupProtocol, Kafka};
use traced_broker::driver::{Driver, DriverExt, Inbound, Source};
use traced_broker::{Subscription, Topic};

use crate::harness::*;
use crate::support::{Kind, Server};

/// Longer than a window may stay full before fetching is paused.
const FULL: Duration = Duration::from_millis(1500);

/// A way in which a group assigns its partitions.
#[derive(Clone, Copy)]
enum Assigns {
    /// A member assigns them; members that stay keep theirs.
    Cooperatively,
    /// A member assigns them, after all members have given up theirs.
    ByRange,
    /// The broker assigns them.
    ByTheBroker,
}

async fn member(servers: &str, assigns: Assigns) -> Kafka {
    let builder = Kafka::builder(servers).partitions(6);
    let builder = match assigns {
        Assigns::Cooperatively => builder,
        Assigns::ByRange => builder.property("partition.assignment.strategy", "range"),
        Assigns::ByTheBroker => builder.group_protocol(GroupProtocol::Consumer),
    };
    let session = if matches!(assigns, Assigns::ByTheBroker) { None } else { Some("6000") };
    let builder = session.map_or(builder.clone(), |session| builder.property("session.timeout.ms", session));
    builder.connect().await.unwrap()
}

async fn publish_spread(kafka: &Kafka, topic: &Topic, numbers: std::ops::Range<u32>) {
    let sent: Vec<_> = numbers.map(|n| kafka.enqueue(topic, keyed(&n.to_string(), n.to_string()))).collect();
    for confirmation in sent {
        confirmation.await.unwrap();
    }
}

async fn subscribe_with(kafka: &Kafka, topic: &Topic, prefetch: usize) -> Source {
    kafka.subscribe(&Subscription::new(&**topic).group(&**topic).prefetch(prefetch)).await.unwrap()
}

/// Takes messages until the window is used up, and holds them until fetching is paused.
async fn fill(source: &mut Source, window: usize) -> Vec<Inbound> {
    let mut held = Vec::new();
    while held.len() < window {
        held.push(next(source).await);
    }
    sleep(FULL).await;
    held
}

async fn settle(held: Vec<Inbound>) {
    for inbound in held {
        // It is lost if its partition is.
        let _ = inbound.handle.settle(traced_broker::driver::Disposition::Ack).await;
    }
}

/// Receives and acknowledges until each of these numbers was received.
async fn receive_all(source: &mut Source, numbers: std::ops::Range<u32>) {
    let mut missing = as_set(numbers);
    while !missing.is_empty() {
        let item = timeout(LONG, std::future::poll_fn(|cx| source.poll_next(cx))).await;
        let item = item.unwrap_or_else(|_| panic!("never delivered: {missing:?}"));
        let inbound = item.expect("the stream ended").unwrap();
        missing.remove(&number(&inbound));
        settle(vec![inbound]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_were_away_while_fetching_was_paused_go_on() {
    busy_other_joins_idle_other_leaves(Assigns::Cooperatively).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_were_away_go_on_after_range_assignment() {
    busy_other_joins_idle_other_leaves(Assigns::ByRange).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_were_away_go_on_in_the_new_group_protocol() {
    busy_other_joins_idle_other_leaves(Assigns::ByTheBroker).await;
}

async fn busy_other_joins_idle_other_leaves(assigns: Assigns) {
    let servers = servers();
    let (kafka, other) = (member(&servers, assigns).await, member(&servers, assigns).await);
    let topic = topic(&kafka, "away").await;
    publish_spread(&kafka, &topic, 0..60).await;
    let mut one = subscribe_with(&kafka, &topic, 8).await;
    let held = fill(&mut one, 8).await;

    let mut two = subscribe_with(&other, &topic, 8).await;
    let first = next(&mut two).await;
    settle(held).await;
    settle(vec![first]).await;
    let caught_up = Arc::new(tokio::sync::Notify::new());
    let leave = Arc::clone(&caught_up);
    let leaving = tokio::spawn(async move {
        loop {
            tokio::select! {
                () = leave.notified() => return drop(two),
                inbound = next(&mut two) => settle(vec![inbound]).await,
            }
        }
    });
    while !is_quiet_after(&mut one, Duration::from_secs(2)).await {}
    caught_up.notify_one();
    leaving.await.unwrap();

    publish_spread(&kafka, &topic, 60..180).await;
    receive_all(&mut one, 60..180).await;
    kafka.close().await.unwrap();
    other.close().await.unwrap();
}

/// Settles the next message; returns `true` if there is none for that time.
async fn is_quiet_after(source: &mut Source, limit: Duration) -> bool {
    match timeout(limit, std::future::poll_fn(|cx| source.poll_next(cx))).await {
        Err(_) => true,
        Ok(item) => {
            settle(vec![item.expect("the stream ended").unwrap()]).await;
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_session_was_lost_while_it_was_busy_goes_on() {
    busy_session_lost(Assigns::Cooperatively).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_session_was_lost_goes_on_after_range_assignment() {
    busy_session_lost(Assigns::ByRange).await;
}

async fn busy_session_lost(assigns: Assigns) {
    let server = spawn_blocking(|| Arc::new(Server::start(Kind::Kafka))).await.unwrap();
    let kafka = member(server.url().trim_start_matches("kafka://"), assigns).await;
    let topic = topic(&kafka, "lost").await;
    publish_spread(&kafka, &topic, 0..60).await;
    let mut source = subscribe_with(&kafka, &topic, 8).await;
    let held = fill(&mut source, 8).await;
    let paused = Arc::clone(&server);
    spawn_blocking(move || paused.pause()).await.unwrap();
    for inbound in &held {
        timeout(LONG, inbound.tenure.over()).await.expect("the session never ends");
    }
    let resumed = Arc::clone(&server);
    spawn_blocking(move || resumed.resume()).await.unwrap();
    receive_all(&mut source, 0..60).await;
    kafka.close().await.unwrap();
}

/// A window that is used up by one long handler, and a group that rebalances all the time: what was
/// fetched for each assignment is let go with it.
#[tokio::test(flavor = "multi_thread")]
async fn many_rebalances_around_one_long_handler_end_nothing() {
    let servers = servers();
    let (kafka, other) = (member(&servers, Assigns::ByRange).await, member(&servers, Assigns::ByRange).await);
    let topic = topic(&kafka, "many").await;
    publish_spread(&kafka, &topic, 0..30).await;
    let mut one = subscribe_with(&kafka, &topic, 1).await;
    let long = next(&mut one).await;
    for _ in 0..12 {
        let mut two = subscribe_with(&other, &topic, 1).await;
        drop(next(&mut two).await);
        drop(two);
    }
    settle(vec![long]).await;
    receive_all(&mut one, 0..30).await;
    kafka.close().await.unwrap();
    other.close().await.unwrap();
}
