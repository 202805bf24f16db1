//! Attempts: failures are counted, hand-outs are not, and the count outlives the process.

use std::time::Duration;

use traced_broker::Topic;
use traced_broker::driver::{Driver, Inbound, Source};

use crate::harness::*;

/// Returns the key of the failed attempts of group `g`.
fn attempts_key(topic: &Topic) -> String {
    format!("{{{topic}}}:g:attempts")
}

/// Waits until the server has this count of failed attempts for the message.
async fn stored(topic: &Topic, message: &Inbound, count: u32) {
    let (key, id) = (attempts_key(topic), message.id.clone().unwrap());
    eventually("the failed attempt is stored", || async {
        Raw::new().await.run::<Option<u32>>(&["HGET", &key, &id]).await == Some(count)
    })
    .await;
}

async fn forgotten(topic: &Topic) {
    let key = attempts_key(topic);
    eventually("the count is removed", || async { Raw::new().await.run::<usize>(&["EXISTS", &key]).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deploys_cost_no_attempt() {
    let topic = topic("deploys");
    publish_numbers(&broker().await, &topic, 0..2).await;
    for _ in 0..5 {
        let broker = broker_with("?claim_idle=400").await;
        let mut source = subscribe(&broker, &topic, "g").await;
        let (first, pending) = (next(&mut source).await, Raw::new().await.pending(&topic, "g").await);
        assert_eq!((text(&first), first.attempt, pending.len()), ("0".to_owned(), 1, 2));
        broker.close().await.unwrap();
    }
    let broker = broker_with("?claim_idle=400").await;
    let mut source = subscribe(&broker, &topic, "g").await;
    let (begun, untouched) = (next(&mut source).await, next(&mut source).await);
    assert_eq!((text(&begun), begun.attempt, begun.deliveries), ("0".to_owned(), 1, Some(6)));
    assert_eq!((text(&untouched), untouched.attempt, untouched.deliveries), ("1".to_owned(), 1, Some(1)));
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_cost_no_attempt() {
    let server = server().await;
    let (broker, topic) = (connect(&server.url()).await.unwrap(), topic("cut"));
    let mut raw = Raw::at(&server.url()).await;
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..3).await;
    ack(next(&mut source).await).await.unwrap();
    for _ in 0..5 {
        raw.break_connections().await;
        // It works again once it has read the next message, which waits behind the others.
        publish_once_it_can(&broker, &topic).await;
        eventually("the next message is read", || async {
            let pending = Raw::at(&server.url()).await.pending(&topic, "g").await;
            let length: usize = Raw::at(&server.url()).await.run(&["XLEN", &topic]).await;
            pending.len() + 1 == length
        })
        .await;
    }
    for number in 1..3 {
        let message = next_message(&mut source).await;
        let counts = (text(&message), message.attempt, message.deliveries);
        assert_eq!(counts, (number.to_string(), 1, Some(1)));
        ack(message).await.unwrap();
    }
    broker.close().await.unwrap();
}

async fn publish_once_it_can(broker: &traced_broker::adapters::redis::Redis, topic: &Topic) {
    eventually("the server is reached", || async { publish(broker, topic, message("more")).await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_attempts_outlive_the_process() {
    let (first, topic) = (broker_with("?claim_idle=400").await, topic("failed"));
    let mut source = subscribe(&first, &topic, "g").await;
    publish_numbers(&first, &topic, 0..2).await;
    let (fails, fine) = (next(&mut source).await, next(&mut source).await);
    fails.handle.failed(1);
    fails.handle.failed(2);
    stored(&topic, &fails, 2).await;
    ack(fine).await.unwrap();
    first.close().await.unwrap();

    let second = broker_with("?claim_idle=400").await;
    let mut source = subscribe(&second, &topic, "g").await;
    let again = next(&mut source).await;
    assert_eq!((text(&again), again.attempt, again.deliveries), ("0".to_owned(), 3, Some(2)));
    again.handle.failed(3);
    stored(&topic, &again, 3).await;
    // A member that dies leaves it to the next one, with the count.
    let mut raw = Raw::new().await;
    let id = again.id.clone().unwrap();
    let _: Vec<String> = raw.run(&["XCLAIM", &topic, "g", "dead", "0", &id, "JUSTID"]).await;
    let again = next(&mut source).await;
    assert_eq!((text(&again), again.attempt, again.deliveries), ("0".to_owned(), 4, Some(3)));
    ack(again).await.unwrap();
    forgotten(&topic).await;
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_messages_that_are_gone_are_removed() {
    let (broker, topic) = (broker_with("?claim_idle=100").await, topic("trimmed"));
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..2).await;
    let (trimmed, kept) = (next(&mut source).await, next(&mut source).await);
    trimmed.handle.failed(1);
    kept.handle.failed(1);
    stored(&topic, &trimmed, 1).await;
    stored(&topic, &kept, 1).await;
    let mut raw = Raw::new().await;
    let (key, id) = (attempts_key(&topic), trimmed.id.clone().unwrap());
    let _: i64 = raw.run(&["XDEL", &topic, &id]).await;
    let _: i64 = raw.run(&["HSET", &key, "1-1", "7"]).await;
    eventually("only the count of the message that is left stays", || async {
        Raw::new().await.run::<Vec<String>>(&["HKEYS", &key]).await == [kept.id.clone().unwrap()]
    })
    .await;
    let expires: i64 = raw.run(&["TTL", &key]).await;
    assert!(expires > 0, "a group that is gone leaves no count for ever: {expires}");
    ack(kept).await.unwrap();
    forgotten(&topic).await;
    broker.close().await.unwrap();
}

/// A member whose prefetch is small beside what others have pending does not page through it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looks_for_what_was_left_without_paging() {
    let server = server().await;
    let (broker, topic) = (connect(&format!("{}?claim_idle=10000", server.url())).await.unwrap(), topic("wide"));
    drop(subscribe(&broker, &topic, "g").await);
    let mut raw = Raw::at(&server.url()).await;
    publish_numbers(&broker, &topic, 0..1000).await;
    for _ in 0..4 {
        publish_numbers(&broker, &topic, 0..1000).await;
    }
    let read = ["XREADGROUP", "GROUP", "g", "other", "COUNT", "5000", "STREAMS", &*topic, ">"];
    let _: ::redis::Value = raw.run(&read).await;
    let mut source = broker.subscribe(&of_group(&topic, "g").prefetch(4)).await.unwrap();
    publish_numbers(&broker, &topic, 0..1).await;
    ack(next(&mut source).await).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stats: String = raw.run(&["INFO", "commandstats"]).await;
    let calls = |command: &str| {
        let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:")));
        line.map_or(0, |line| line.split(['=', ',']).nth(1).unwrap().parse::<u32>().unwrap())
    };
    let looks = calls("xautoclaim") + calls("xclaim") + calls("xpending");
    assert!(looks <= 20, "{looks} looks in three seconds: {stats}");
    broker.close().await.unwrap();
}

/// Waits until the server has this number of trials for the message.
async fn noted(topic: &Topic, id: &str, trials: Option<i64>) {
    let (key, field) = (attempts_key(topic), format!("{id}/trials"));
    eventually("the trials are noted", || async {
        Raw::new().await.run::<Option<i64>>(&["HGET", &key, &field]).await == trials
    })
    .await;
}

/// Publishes a message and takes it as one that was handed out twice without being heard of.
async fn suspect(broker: &traced_broker::adapters::redis::Redis, topic: &Topic) -> (Source, Inbound) {
    drop(subscribe(broker, topic, "g").await);
    publish_numbers(broker, topic, 0..1).await;
    let mut raw = Raw::new().await;
    let _: ::redis::Value = raw.run(&["XREADGROUP", "GROUP", "g", "dead", "STREAMS", topic, ">"]).await;
    let id = raw.pending(topic, "g").await[0].0.clone();
    let _: ::redis::Value = raw.run(&["XCLAIM", topic, "g", "dead", "0", &id, "RETRYCOUNT", "2"]).await;
    let mut source = subscribe(broker, topic, "g").await;
    let message = next(&mut source).await;
    assert_eq!((message.attempt, message.deliveries, message.lost_trials), (1, Some(3), Some(0)));
    (source, message)
}

/// Takes the message from the member in the name of one that is gone.
async fn take_away(topic: &Topic, id: &str) {
    let _: Vec<String> = Raw::new().await.run(&["XCLAIM", topic, "g", "dead", "0", id, "JUSTID"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_is_lost_with_its_process_and_withdrawn_by_one_that_lives() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("tried"));
    let (mut source, message) = suspect(&broker, &topic).await;
    let id = message.id.clone().unwrap();
    message.handle.begin_trial().await.unwrap();
    noted(&topic, &id, Some(1)).await;
    message.handle.failed(1);
    noted(&topic, &id, Some(0)).await;
    message.handle.begin_trial().await.unwrap();
    noted(&topic, &id, Some(1)).await;
    // As a process leaves it that has ended.
    let _: i64 = Raw::new().await.run(&["HINCRBY", &attempts_key(&topic), &format!("{id}/trials"), "2"]).await;
    take_away(&topic, &id).await;
    let again = next(&mut source).await;
    assert_eq!((again.attempt, again.lost_trials), (2, Some(2)));
    drop(message);
    noted(&topic, &id, Some(2)).await;
    again.handle.begin_trial().await.unwrap();
    noted(&topic, &id, Some(3)).await;
    ack(again).await.unwrap();
    forgotten(&topic).await;
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_is_withdrawn_by_a_member_that_ends_or_has_lost_the_message() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("untried"));
    let (mut source, message) = suspect(&broker, &topic).await;
    let id = message.id.clone().unwrap();
    message.handle.begin_trial().await.unwrap();
    take_away(&topic, &id).await;
    let again = next(&mut source).await;
    assert_eq!(again.lost_trials, Some(0), "its first handler runs in this process");
    drop(message);
    noted(&topic, &id, Some(0)).await;
    again.handle.begin_trial().await.unwrap();
    noted(&topic, &id, Some(1)).await;
    broker.close().await.unwrap();
    noted(&topic, &id, Some(0)).await;
    drop(again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_no_lost_trial() {
    let server = server().await;
    let (broker, topic) = (connect(&format!("{}?claim_idle=400", server.url())).await.unwrap(), topic("cut"));
    let mut raw = Raw::at(&server.url()).await;
    drop(subscribe(&broker, &topic, "g").await);
    publish_numbers(&broker, &topic, 0..1).await;
    let _: ::redis::Value = raw.run(&["XREADGROUP", "GROUP", "g", "dead", "STREAMS", &topic, ">"]).await;
    let id = raw.pending(&topic, "g").await[0].0.clone();
    let _: ::redis::Value = raw.run(&["XCLAIM", &topic, "g", "dead", "0", &id, "RETRYCOUNT", "2"]).await;
    let mut source = subscribe(&broker, &topic, "g").await;
    for _ in 0..3 {
        let message = next_message(&mut source).await;
        assert_eq!(message.lost_trials, Some(0));
        message.handle.begin_trial().await.unwrap();
        raw.break_connections().await;
        drop(message);
    }
    let message = next_message(&mut source).await;
    let (key, field) = (attempts_key(&topic), format!("{id}/trials"));
    assert_eq!(raw.run::<Option<i64>>(&["HGET", &key, &field]).await, Some(0));
    ack(message).await.unwrap();
    broker.close().await.unwrap();
}
