//! The server's own limits: the time that a message may stay unsettled, and its number of
//! deliveries.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lapin::types::{AMQPValue, FieldTable};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use traced_broker::adapters::amqp::Amqp;
use traced_broker::driver::{Disposition, Driver, DriverExt, Inbound};
use traced_broker::{
    ErrorKind, HandlerError, Message, Received, Retry, Subscription, Topic, Traced, TracedBroker, TracedBrokerExt,
};

use crate::attempts::make_queue;
use crate::driving::*;
use crate::support::{Kind, Server};

const NOW: Disposition = Disposition::Retry(Duration::ZERO);

async fn publish_numbers(amqp: &Amqp, topic: &Topic, count: u32) {
    for n in 0..count {
        confirmed(amqp.enqueue(topic, outbound(n.to_string()))).await.unwrap();
    }
}

/// A delivery that is held too long is taken away alone, before the server ends the channel of all.
#[tokio::test]
async fn a_delivery_that_is_held_too_long_is_given_back_alone() {
    const LIMIT: Duration = Duration::from_millis(5000);
    let topic = unique("held");
    let amqp = connect("?consumer_timeout=5000").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let begin = Instant::now();
    publish_numbers(&amqp, &topic, 1).await;
    let held = next(&mut source).await;
    tokio::time::sleep(LIMIT / 2).await;
    confirmed(amqp.enqueue(&topic, outbound("young"))).await.unwrap();
    let young = next(&mut source).await;
    timeout(PATIENCE, held.tenure.over()).await.unwrap();
    assert!(begin.elapsed() > LIMIT / 2 && begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    assert_eq!(settle(held, Disposition::Ack).await.unwrap_err().kind(), ErrorKind::SettlementLost);
    assert!(!young.tenure.is_over());
    settle(young, Disposition::Ack).await.unwrap();
    let back = next(&mut source).await;
    assert_eq!((text(&back), back.attempt), ("0".to_owned(), 1));
    settle(back, Disposition::Ack).await.unwrap();
    silent(&mut source).await;
}

/// Messages that were fetched ahead and are not taken go to other members in time.
#[tokio::test]
async fn messages_that_are_only_fetched_are_given_back_in_time() {
    let topic = unique("fetched");
    let amqp = connect("?consumer_timeout=2000").await.unwrap();
    let mut busy = subscribe(&amqp, group(&topic, "g").prefetch(4)).await;
    publish_numbers(&amqp, &topic, 4).await;
    let held = next(&mut busy).await;
    let begin = Instant::now();
    let mut free = subscribe(&amqp, group(&topic, "g").prefetch(4)).await;
    let mut seen = HashSet::new();
    // The server offers them to both members in turn.
    while seen.len() < 3 {
        let inbound = next(&mut free).await;
        assert_eq!(inbound.attempt, 1);
        if text(&inbound) != text(&held) {
            seen.insert(text(&inbound));
        }
        settle(inbound, Disposition::Ack).await.unwrap();
        assert!(begin.elapsed() < PATIENCE);
    }
}

/// With a server that means it: the channel does not end, and nobody else's settlement is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_slow_message_does_not_take_the_channel_with_it() {
    const COUNT: u32 = 20;
    // Two seconds more than the adapter is told, because a busy machine runs its tasks late.
    let environment = vec![("RABBITMQ_CONSUMER_TIMEOUT", "8000".to_owned())];
    let kind = Kind::RabbitMq.of_generation();
    let start = move || Server::start_at(kind, Server::free_port(kind), environment);
    let server = spawn_blocking(start).await.unwrap();
    let topic = Topic::new("slow").unwrap();
    let amqp = connect_to(&format!("{}/?consumer_timeout=6000", server.url())).await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g").prefetch(8)).await;
    publish_numbers(&amqp, &topic, COUNT).await;
    let slow = next(&mut source).await;
    let mut lost = 0;
    let begin = Instant::now();
    let mut young: Option<Inbound> = None;
    let mut seen = HashSet::new();
    // One message is in hand at any time, for half a second, while the slow one passes its limit
    // twice. On a busy machine the others take longer than that.
    let is_over = |seen: &HashSet<String>| {
        let elapsed = begin.elapsed();
        elapsed > Duration::from_secs(14) && (seen.len() as u32 == COUNT || elapsed > Duration::from_secs(60))
    };
    while !is_over(&seen) {
        if let Ok(inbound) = timeout(Duration::from_millis(500), next(&mut source)).await {
            seen.insert(text(&inbound));
            if let Some(young) = young.replace(inbound) {
                lost += u32::from(settle(young, Disposition::Ack).await.is_err());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    assert_eq!(lost, 0, "settlements of others");
    assert_eq!(seen.len() as u32, COUNT, "{seen:?}");
    assert!(slow.tenure.is_over());
}

/// A handler that always takes longer than a message may stay unsettled. Its verdict is carried out
/// when the message comes again.
#[tokio::test]
async fn a_handler_beyond_the_time_limit_does_not_run_for_ever() {
    let topic = unique("beyond");
    let broker = Traced::new(connect("?consumer_timeout=3000").await.unwrap());
    let runs = AtomicU32::new(0);
    let handler = async |message: Received| {
        if &message.payload()[..] == b"slow" {
            runs.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(4500)).await;
        }
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(group(&topic, "g"), handler).concurrency(4);
    let publish = async {
        broker.publish(&topic, Message::new("slow")).await.unwrap();
        for _ in 0..100 {
            broker.publish(&topic, Message::new("fast")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let report = consume.run_until(publish).await.unwrap();
    let runs = runs.load(Ordering::Relaxed);
    assert!((1..=3).contains(&runs), "{runs} runs, {report:?}");
    let mut left = subscribe(broker.get_ref(), group(&topic, "g")).await;
    silent(&mut left).await;
}

/// Attempts far apart hold a message for longer than it may stay unsettled.
#[tokio::test]
async fn attempts_that_take_longer_than_the_time_limit_come_to_an_end() {
    let topic = unique("apart");
    let broker = Traced::new(connect("?consumer_timeout=3000").await.unwrap());
    let (runs, good) = (AtomicU32::new(0), AtomicU32::new(0));
    let handler = async |message: Received| {
        if &message.payload()[..] == b"bad" {
            runs.fetch_add(1, Ordering::Relaxed);
            return Err(HandlerError::retry("not yet"));
        }
        good.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let dead = format!("{topic}.dead");
    let _letters = broker.subscribe(group(&Topic::new(&dead).unwrap(), "g")).await.unwrap();
    let subscription = group(&topic, "g").dead_letter(dead.as_str());
    let retry = Retry::fixed(4, Duration::from_secs(2));
    let consume = broker.consume(subscription, handler).concurrency(4).ordered_by_key().retry(retry);
    let publish = async {
        for text in ["bad", "good"] {
            broker.publish(&topic, Message::new(text).key("k")).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(16)).await;
    };
    let report = consume.run_until(publish).await.unwrap();
    let (runs, good) = (runs.load(Ordering::Relaxed), good.load(Ordering::Relaxed));
    assert_eq!((runs, good), (4, 1), "{report:?}");
    assert_eq!(report.rejected, 1, "{report:?}");
}

fn limited(limit: i32) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(limit));
    arguments
}

/// The server drops a message of such a queue at its fourth delivery, whatever happened to it.
#[tokio::test]
async fn an_operators_delivery_limit_drops_no_message() {
    let topic = unique("limited");
    make_queue(&topic, "g", limited(2)).await;
    let amqp = connect("?topology=check&delivery_limit=2").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("kept"))).await.unwrap();
    let mut attempt = 1;
    let mut deliveries = 0;
    for step in [[Disposition::GiveBack; 7], [NOW; 7], [Disposition::GiveBack; 7]].concat() {
        let inbound = next(&mut source).await;
        assert_eq!((text(&inbound), inbound.attempt), ("kept".to_owned(), attempt));
        let before = std::mem::replace(&mut deliveries, inbound.deliveries.unwrap());
        assert!(deliveries > before, "{deliveries} after {before}");
        settle(inbound, step).await.unwrap();
        attempt += u32::from(step == NOW);
    }
    assert_eq!(next_text(&mut source).await, "kept");
    silent(&mut source).await;
}

/// Lost connections count too, for messages in hand and for those that were only fetched.
#[tokio::test]
async fn an_operators_delivery_limit_survives_lost_connections() {
    let topic = unique("limited-lost");
    make_queue(&topic, "g", limited(2)).await;
    let options = "?topology=check&delivery_limit=2";
    let amqp = connect(options).await.unwrap();
    publish_numbers(&amqp, &topic, 4).await;
    for _ in 0..7 {
        let lost = connect(options).await.unwrap();
        let mut source = subscribe(&lost, group(&topic, "g")).await;
        let held = next(&mut source).await;
        assert_eq!(held.attempt, 1);
        lost.close().await.unwrap();
    }
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let mut left = HashSet::new();
    for _ in 0..4 {
        left.insert(next_text(&mut source).await);
    }
    assert_eq!(left.len(), 4, "{left:?}");
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() {
    for options in ["?consumer_timeout=soon", "?consumer_timeout=10", "?delivery_limit=-1"] {
        assert_eq!(connect(options).await.unwrap_err().kind(), ErrorKind::InvalidConfig, "{options}");
    }
    let amqp = connect("?consumer_timeout=0").await.unwrap();
    let topic = unique("no-timeout");
    let mut source = subscribe(&amqp, Subscription::new(topic.as_str())).await;
    silent(&mut source).await;
}
