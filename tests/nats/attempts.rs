//! Attempts: the retries that were asked for, not the times that the server hands a message out.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer};
use traced_broker::adapters::nats::Nats;
use traced_broker::driver::{Disposition, Driver, Inbound, Source};
use traced_broker::{ErrorKind, Start, Subscription, Topic};

use crate::kit::{
    self, ack, assert_quiet, connect_to, next, next_message, publish_numbers, settle, subscribe, text, topic,
};
use crate::process::Process;

const AT_ONCE: Disposition = Disposition::Retry(Duration::ZERO);

fn place(topic: &Topic) -> String {
    format!("{}@tries", topic.replace('.', "~"))
}

/// Returns attempt and deliveries.
fn counts(inbound: &Inbound) -> (u32, u32) {
    (inbound.attempt, inbound.deliveries.expect("the server counts"))
}

async fn restarted(nats: Nats, source: Source, topic: &Topic) -> (Nats, Source) {
    drop(source);
    nats.close().await.unwrap();
    let nats = kit::connect().await;
    let source = subscribe(&nats, topic, "workers").await;
    (nats, source)
}

#[tokio::test]
async fn a_message_that_is_only_fetched_ahead_keeps_its_first_attempt_over_restarts() {
    let mut nats = kit::connect().await;
    let topic = topic("fetched");
    publish_numbers(&nats, &topic, 0..3).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    for _ in 0..4 {
        let held = next(&mut source).await;
        assert_eq!(held.attempt, 1);
        settle(held, Disposition::GiveBack).await.unwrap();
        (nats, source) = restarted(nats, source, &topic).await;
    }
    for _ in 0..3 {
        let inbound = next(&mut source).await;
        let (attempt, deliveries) = counts(&inbound);
        assert!(attempt == 1 && deliveries >= 4, "attempt {attempt} of {deliveries} deliveries");
        settle(inbound, AT_ONCE).await.unwrap();
    }
    for _ in 0..3 {
        let inbound = next(&mut source).await;
        assert_eq!(inbound.attempt, 2, "one retry was asked for");
        ack(inbound).await;
    }
}

#[tokio::test]
async fn a_message_keeps_its_first_attempt_over_lost_connections() {
    let client = kit::raw().await;
    let nats = Nats::from_client(client.clone()).connect().await.unwrap();
    let topic = topic("cut");
    publish_numbers(&nats, &topic, 0..1).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    for deliveries in 1..=3 {
        let inbound = next_message(&mut source).await;
        assert_eq!(counts(&inbound), (1, deliveries));
        client.force_reconnect().await.unwrap();
        assert_quiet(&mut source).await;
        assert!(!inbound.tenure.is_over(), "it stays in hand");
    }
}

#[tokio::test]
async fn another_process_knows_the_failures_of_the_last_one() {
    let (mut nats, topic) = (kit::connect().await, topic("known"));
    publish_numbers(&nats, &topic, 0..2).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    for attempt in 1..=3 {
        let inbound = next(&mut source).await;
        let failing = if text(&inbound) == "0" { inbound } else { next(&mut source).await };
        assert_eq!((text(&failing), failing.attempt), ("0", attempt));
        settle(failing, AT_ONCE).await.unwrap();
        (nats, source) = restarted(nats, source, &topic).await;
    }
    for _ in 0..2 {
        let inbound = next(&mut source).await;
        let (attempt, deliveries) = counts(&inbound);
        assert!(deliveries > attempt, "{deliveries} deliveries");
        assert_eq!(attempt, if text(&inbound) == "0" { 4 } else { 1 });
        ack(inbound).await;
    }
    // What is settled leaves no record.
    let context = jetstream::new(kit::raw().await);
    let begun = Instant::now();
    while context.get_stream(place(&topic)).await.unwrap().cached_info().state.messages > 0 {
        assert!(begun.elapsed() < kit::SOON, "the record stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    nats.close().await.unwrap();
}

/// Two members hand a message to each other, so that what one of them knows is old.
#[tokio::test]
async fn members_count_together() {
    let topic = topic("together");
    let members = [kit::connect().await, kit::connect().await];
    publish_numbers(&members[0], &topic, 0..1).await;
    for attempt in 1..=6 {
        let mut source = subscribe(&members[attempt % 2], &topic, "workers").await;
        let inbound = next(&mut source).await;
        assert_eq!(inbound.attempt, attempt as u32);
        settle(inbound, AT_ONCE).await.unwrap();
        // Ended without a wait for what it gives back.
        drop(source);
    }
}

#[tokio::test]
async fn nothing_is_made_at_the_server_for_messages_that_do_not_fail() {
    let (nats, topic) = (kit::connect().await, topic("good"));
    publish_numbers(&nats, &topic, 0..5).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    drop(next(&mut source).await);
    for _ in 0..5 {
        ack(next(&mut source).await).await;
    }
    assert!(jetstream::new(kit::raw().await).get_stream(place(&topic)).await.is_err());
}

/// A group of the same name that is made anew begins anew, and so does one that is moved.
#[tokio::test]
async fn old_failures_do_not_count_for_a_new_group_or_position() {
    let (nats, topic) = (kit::connect().await, topic("old"));
    publish_numbers(&nats, &topic, 0..1).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    for _ in 0..3 {
        settle(next(&mut source).await, AT_ONCE).await.unwrap();
    }
    let held = next(&mut source).await;
    assert_eq!(held.attempt, 4);
    let context = jetstream::new(kit::raw().await);
    let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
    stream.delete_consumer("workers").await.unwrap();
    for deliveries in 1..=2 {
        let inbound = next_message(&mut source).await;
        assert_eq!(counts(&inbound), (1, deliveries), "after the group was deleted");
        settle(inbound, Disposition::GiveBack).await.unwrap();
    }
    drop(held);
    settle(next(&mut source).await, AT_ONCE).await.unwrap();
    assert_eq!(next(&mut source).await.attempt, 2);
    nats.reposition(&Subscription::new(&*topic).group("workers"), Start::Offset(1)).await.unwrap();
    for _ in 0..2 {
        let inbound = next_message(&mut source).await;
        assert_eq!(inbound.attempt, 1, "after the move");
        settle(inbound, Disposition::GiveBack).await.unwrap();
    }
}

/// A user without the permission counts in its process, and does not wait for it.
#[tokio::test]
async fn without_permission_the_process_counts() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("server.conf");
    let users = r#"jetstream {}
        authorization { users: [
            { user: app, password: secret, permissions: {
                publish: { deny: ["@tries.>", "$JS.API.STREAM.CREATE.*@tries"] } } } ] }"#;
    std::fs::write(&config, users).unwrap();
    let server = Process::start(&["--config", config.to_str().unwrap()]);
    let nats = connect_to(&format!("nats://app:secret@127.0.0.1:{}", server.port())).await.unwrap();
    let topic = topic("denied");
    publish_numbers(&nats, &topic, 0..1).await;
    check_counts_here(&nats, &topic).await;
}

#[tokio::test]
async fn with_topology_check_the_place_is_not_created() {
    let (nats, topic) = (kit::connect().await, topic("check"));
    publish_numbers(&nats, &topic, 0..1).await;
    drop(subscribe(&nats, &topic, "workers").await);
    let checking = kit::connect_with("?topology=check").await;
    check_counts_here(&checking, &topic).await;
    assert!(jetstream::new(kit::raw().await).get_stream(place(&topic)).await.is_err());
}

async fn check_counts_here(nats: &Nats, topic: &Topic) {
    let mut source = subscribe(nats, topic, "workers").await;
    let begun = Instant::now();
    for attempt in 1..=3 {
        let inbound = next(&mut source).await;
        assert_eq!(inbound.attempt, attempt);
        settle(inbound, Disposition::GiveBack).await.unwrap();
        let inbound = next(&mut source).await;
        assert_eq!(inbound.attempt, attempt, "given back");
        settle(inbound, AT_ONCE).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    ack(next(&mut source).await).await;
}

/// The server drops a message without a word once it has handed it out that often.
#[tokio::test]
async fn a_small_limit_of_deliveries_is_refused_with_the_remedy() {
    let (nats, topic) = (kit::connect().await, topic("limit"));
    publish_numbers(&nats, &topic, 0..1).await;
    let context = jetstream::new(kit::raw().await);
    let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
    for (name, max_deliver) in [("three", 3), ("thousand", 1000), ("none", -1)] {
        let own = consumer::pull::Config {
            durable_name: Some(name.into()),
            filter_subject: topic.to_string(),
            max_deliver,
            ..Default::default()
        };
        stream.create_consumer(own).await.unwrap();
    }
    let error = nats.subscribe(&Subscription::new(&*topic).group("three")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("set max_deliver"), "{error}");
    for name in ["thousand", "none"] {
        let mut source = subscribe(&nats, &topic, name).await;
        ack(next(&mut source).await).await;
    }
}

/// Hands a message out until it is a suspect, and returns that delivery.
async fn suspect(source: &mut Source) -> Inbound {
    loop {
        let inbound = next_message(source).await;
        if inbound.lost_trials.is_some() {
            return inbound;
        }
        settle(inbound, Disposition::GiveBack).await.unwrap();
    }
}

/// Returns what the record of the message says, if there is one.
async fn record(topic: &Topic) -> Option<String> {
    let place = jetstream::new(kit::raw().await).get_stream(place(topic)).await.ok()?;
    let last = place.cached_info().state.last_sequence;
    let message = place.get_raw_message(last).await.ok()?;
    Some(String::from_utf8(message.payload.to_vec()).unwrap())
}

async fn recorded(topic: &Topic, part: Option<&str>) {
    let begun = Instant::now();
    loop {
        let found = record(topic).await;
        if found.is_some() == part.is_some() && part.is_none_or(|part| found.as_ref().unwrap().contains(part)) {
            return;
        }
        assert!(begun.elapsed() < kit::SOON, "not {part:?}: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_trial_is_lost_with_its_process_and_withdrawn_by_one_that_lives() {
    let (first, topic) = (kit::connect().await, topic("tried"));
    publish_numbers(&first, &topic, 0..1).await;
    let mut source = subscribe(&first, &topic, "workers").await;
    let inbound = suspect(&mut source).await;
    assert_eq!((inbound.lost_trials, counts(&inbound)), (Some(0), (1, 3)));
    inbound.handle.begin_trial().await.unwrap();
    recorded(&topic, Some(r#""trials":1"#)).await;
    // Nothing runs in a process that has ended.
    std::mem::forget(inbound.handle);
    let (second, mut source) = restarted(first, source, &topic).await;
    let inbound = suspect(&mut source).await;
    assert_eq!(inbound.lost_trials, Some(1));
    inbound.handle.begin_trial().await.unwrap();
    recorded(&topic, Some(r#""trials":2"#)).await;
    settle(inbound, AT_ONCE).await.unwrap();
    let inbound = next(&mut source).await;
    assert_eq!((inbound.lost_trials, inbound.attempt), (Some(1), 2), "it has failed, and was heard of");
    recorded(&topic, Some(r#""trials":1"#)).await;
    inbound.handle.begin_trial().await.unwrap();
    drop(inbound);
    let (_third, mut source) = restarted(second, source, &topic).await;
    let inbound = next(&mut source).await;
    assert_eq!((inbound.lost_trials, inbound.attempt), (Some(1), 2));
    inbound.handle.begin_trial().await.unwrap();
    ack(inbound).await;
    recorded(&topic, None).await;
}

#[tokio::test]
async fn a_lost_connection_is_no_lost_trial() {
    let client = kit::raw().await;
    let nats = Nats::from_client(client.clone()).connect().await.unwrap();
    let topic = topic("untried");
    publish_numbers(&nats, &topic, 0..1).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let mut inbound = suspect(&mut source).await;
    for _ in 0..3 {
        inbound.handle.begin_trial().await.unwrap();
        client.force_reconnect().await.unwrap();
        // It is given back over the next connection.
        drop(inbound);
        inbound = next_message(&mut source).await;
        assert_eq!(inbound.lost_trials, Some(0));
        recorded(&topic, None).await;
    }
    let other = kit::connect().await;
    drop((inbound, source));
    assert_eq!(next(&mut subscribe(&other, &topic, "workers").await).await.lost_trials, Some(0));
}

/// Changes of one record by several members are all counted.
#[tokio::test]
async fn trials_of_several_members_are_counted_together() {
    let topic = topic("shared");
    let members = [kit::connect().await, kit::connect().await];
    publish_numbers(&members[0], &topic, 0..1).await;
    let mut source = subscribe(&members[0], &topic, "workers").await;
    let first = suspect(&mut source).await;
    first.handle.begin_trial().await.unwrap();
    // The first one is cut off: the server gives the message to the second.
    let context = jetstream::new(kit::raw().await);
    let reply = format!("$JS.ACK.{}.workers.3.1.3.1.0", topic.replace('.', "~"));
    drop(source);
    let mut source = subscribe(&members[1], &topic, "workers").await;
    context.client().publish(reply, "-NAK".into()).await.unwrap();
    let second = next(&mut source).await;
    assert_eq!(second.lost_trials, Some(1), "nothing is heard of the first one yet");
    second.handle.begin_trial().await.unwrap();
    recorded(&topic, Some(r#""trials":2"#)).await;
    drop(first);
    recorded(&topic, Some(r#""trials":1"#)).await;
    drop(second);
    recorded(&topic, None).await;
}
