//! Exchanges and bindings that an operator deletes while they are in use.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::time::{sleep, timeout};
use traced_broker::PublishOutcome;
use traced_broker::driver::{Driver, DriverExt, Outbound};

use crate::driving::*;

/// Time from the deed until everything goes on.
const RECOVERY: Duration = Duration::from_secs(9);

#[derive(Debug, Clone, Copy)]
enum Deed {
    DeleteExchange,
    Unbind,
}

async fn commit(deed: Deed, topic: &str, queue: &str) {
    let channel = raw().await.create_channel().await.unwrap();
    match deed {
        Deed::DeleteExchange => {
            channel.exchange_delete(topic.into(), ExchangeDeleteOptions::default()).await.unwrap();
        }
        Deed::Unbind => {
            channel.queue_unbind(queue.into(), topic.into(), "#".into(), FieldTable::default()).await.unwrap();
        }
    }
}

/// Publishes all the time. What is confirmed, comes.
async fn nothing_confirmed_is_lost(deed: Deed, by_another_driver: bool) {
    let topic = unique("deed");
    let (consuming, apart) = (connect("").await.unwrap(), connect("").await.unwrap());
    let publishing = if by_another_driver { &apart } else { &consuming };
    let mut source = subscribe(&consuming, group(&topic, "g")).await;
    let (mut missing, mut after, mut number) = (HashSet::new(), 0, 0);
    let (begin, mut is_done) = (Instant::now(), false);
    while begin.elapsed() < RECOVERY {
        if !is_done && begin.elapsed() > Duration::from_millis(500) {
            commit(deed, &topic, &format!("{topic}.g")).await;
            is_done = true;
        }
        if confirmed(publishing.enqueue(&topic, outbound(number.to_string()))).await.is_ok() {
            missing.insert(number.to_string());
            after += u32::from(is_done);
        }
        number += 1;
        sleep(Duration::from_millis(10)).await;
    }
    assert!(after > 0, "{deed:?}: publishing goes on");
    while !missing.is_empty() {
        match timeout(Duration::from_secs(5), next_text(&mut source)).await {
            Ok(text) => missing.remove(&text),
            Err(_) => break,
        };
    }
    assert!(missing.is_empty(), "{deed:?}, by another driver: {by_another_driver}: lost {missing:?}");
}

#[tokio::test]
async fn nothing_is_confirmed_into_an_exchange_that_lost_its_queues() {
    let deeds = [(Deed::DeleteExchange, false), (Deed::DeleteExchange, true), (Deed::Unbind, false)];
    join_all(deeds.map(|(deed, apart)| nothing_confirmed_is_lost(deed, apart))).await;
}

/// The way of a message that waits goes with the exchange that it waits for.
#[tokio::test]
async fn what_waits_reaches_a_topic_that_was_deleted_and_made_again_meanwhile() {
    let topic = unique("waits-for");
    let (consuming, publishing) = (connect("").await.unwrap(), connect("").await.unwrap());
    let mut source = subscribe(&consuming, group(&topic, "g")).await;
    let deliver_at = Some(SystemTime::now() + Duration::from_secs(14));
    confirmed(publishing.enqueue(&topic, Outbound { deliver_at, ..outbound("later") })).await.unwrap();
    commit(Deed::DeleteExchange, &topic, "").await;
    assert_eq!(next_text(&mut source).await, "later");
}

/// The channel on which a message was refused is lost to all others, but only once.
#[tokio::test]
async fn a_topic_that_stays_refused_costs_the_others_nothing_more() {
    let (gone, good) = (unique("gone-for-good"), unique("good"));
    connect("").await.unwrap().declare(&gone).await.unwrap();
    let creating = connect("").await.unwrap();
    let mut source = subscribe(&creating, group(&good, "g")).await;
    let amqp = connect("?topology=check").await.unwrap();
    commit(Deed::DeleteExchange, &gone, "").await;
    confirmed(amqp.enqueue(&gone, outbound("x"))).await.unwrap_err();
    while confirmed(amqp.enqueue(&good, outbound("begin"))).await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    let (begin, mut asked) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(5) {
        let refused = amqp.enqueue(&gone, outbound("x"));
        let beside: Vec<_> = (0..10).map(|_| amqp.enqueue(&good, outbound("x"))).collect();
        let error = confirmed(refused).await.unwrap_err();
        assert_eq!(error.publish_outcome(), PublishOutcome::NotSent);
        // The broker's own words are the source.
        asked += u32::from(std::error::Error::source(&error).is_some());
        for taken in beside {
            confirmed(taken).await.expect("what another topic is refused costs this one nothing");
        }
        while let Ok(text) = timeout(Duration::from_millis(20), next_text(&mut source)).await {
            assert!(["begin", "x"].contains(&&*text));
        }
    }
    assert!(asked > 0, "the topic was tried again");
    creating.declare(&gone).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = confirmed(amqp.enqueue(&gone, outbound("x"))).await {
        assert!(Instant::now() < deadline, "{error}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A direct exchange has no key that matches all.
#[tokio::test]
async fn a_reader_sees_what_is_published_to_a_direct_exchange() {
    let topic = unique("direct");
    let channel = raw().await.create_channel().await.unwrap();
    let (kind, durable) = (lapin::ExchangeKind::Direct, Default::default());
    channel.exchange_declare(topic.as_str().into(), kind, durable, FieldTable::default()).await.unwrap();
    let amqp = connect("?topology=check").await.unwrap();
    let mut source = subscribe(&amqp, traced_broker::Subscription::new(topic.as_str())).await;
    let told = connect("?topology=check&binding_key=other,third").await.unwrap();
    let mut of_others = subscribe(&told, traced_broker::Subscription::new(topic.as_str())).await;
    for key in [topic.as_str(), "other", "third"] {
        let (options, properties) = (Default::default(), lapin::BasicProperties::default());
        channel.basic_publish(topic.as_str().into(), key.into(), options, b"theirs", properties).await.unwrap();
        let reader = if key == topic.as_str() { &mut source } else { &mut of_others };
        assert_eq!(next_text(reader).await, "theirs", "{key}");
    }
    confirmed(amqp.enqueue(&topic, outbound("ours"))).await.unwrap();
    assert_eq!(next_text(&mut source).await, "ours");
}

/// An operator's own way of dead letters leaves a table behind, which is no context.
#[tokio::test]
async fn the_brokers_words_about_a_dead_letter_are_no_context_that_was_not_read() {
    let topic = unique("dead-lettered");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let channel = raw().await.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    let text = |text: &str| lapin::types::AMQPValue::LongString(text.into());
    arguments.insert("x-dead-letter-exchange".into(), text(topic.as_str()));
    arguments.insert("x-message-ttl".into(), lapin::types::AMQPValue::LongInt(1));
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = channel.queue_declare("".into(), exclusive, arguments).await.unwrap();
    let (options, properties) = (Default::default(), lapin::BasicProperties::default());
    channel.basic_publish("".into(), queue.name().clone(), options, b"old", properties).await.unwrap();
    let inbound = next(&mut source).await;
    assert_eq!((text_of(&inbound), inbound.unreadable_headers), ("old", 0));
    assert_eq!(inbound.headers.get_str("x-first-death-reason"), Some("expired"));
}

fn text_of(inbound: &traced_broker::driver::Inbound) -> &str {
    std::str::from_utf8(inbound.payload.as_deref().unwrap()).unwrap()
}
