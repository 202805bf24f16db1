//! Messages that wait at the broker because they are to be delivered later than they are published.

use std::time::{Duration, SystemTime};

use lapin::options::{
    BasicGetOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use traced_broker::driver::{Disposition, Driver, DriverExt, Outbound};
use traced_broker::{Capabilities, ErrorKind, Headers, PublishOutcome};

use crate::driving::*;

/// Maximum delay after the due time, on a busy machine and with up to seven queues to pass.
const TOLERANCE: Duration = Duration::from_secs(3);

fn in_ms(milliseconds: u64) -> SystemTime {
    SystemTime::now() + Duration::from_millis(milliseconds)
}

fn later(payload: &str, time: SystemTime) -> Outbound {
    Outbound { deliver_at: Some(time), ..outbound(payload.to_owned()) }
}

/// Declares everything that waiting needs, so that no test waits for a declaration.
async fn warm(amqp: &impl Driver) {
    let topic = unique("warm");
    amqp.declare(&topic).await.unwrap();
    for milliseconds in [1500, 700, 100] {
        confirmed(amqp.enqueue(&topic, later("x", in_ms(milliseconds)))).await.unwrap();
    }
}

#[tokio::test]
async fn a_delayed_message_comes_in_time_as_it_was_published() {
    let topic = unique("delayed");
    let amqp = connect("").await.unwrap();
    warm(&amqp).await;
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let mut headers = Headers::new();
    headers.append("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    headers.append("content-type", "text/plain");
    headers.append("many", "1");
    headers.append("many", [0xff, 0x00]);
    headers.append("empty", "");
    for milliseconds in [1, 20, 300, 777, 1500] {
        let time = in_ms(milliseconds);
        let message = Outbound {
            key: Some("k".into()),
            id: Some("id-1".to_owned()),
            headers: headers.clone(),
            ..later("payload", time)
        };
        assert!(confirmed(amqp.enqueue(&topic, message)).await.unwrap().confirmed);
        let inbound = next(&mut source).await;
        let late = SystemTime::now().duration_since(time).expect("never before its time");
        eprintln!("delayed by {milliseconds} ms, late by {late:?}");
        assert!(late < TOLERANCE, "{late:?} late");
        assert_eq!((text(&inbound), inbound.attempt, inbound.unreadable_headers), ("payload".to_owned(), 1, 0));
        assert_eq!((inbound.key.as_deref(), inbound.id.as_deref()), (Some(&b"k"[..]), Some("id-1")));
        let mut names: Vec<_> = inbound.headers.iter().map(|(name, _)| name.to_owned()).collect();
        names.sort();
        assert_eq!(names, ["content-type", "empty", "many", "many", "traceparent"]);
        for (name, _) in headers.iter() {
            assert!(inbound.headers.get_all(name).eq(headers.get_all(name)), "{name}");
        }
        let stamp = inbound.timestamp.unwrap().time;
        assert!(stamp <= time && stamp + Duration::from_millis(1) > time, "stamped as if published then");
        settle(inbound, Disposition::Ack).await.unwrap();
    }
}

#[tokio::test]
async fn short_delays_do_not_wait_for_long_ones() {
    let topic = unique("mixed");
    let amqp = connect("").await.unwrap();
    warm(&amqp).await;
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    // The sixth digit is the same for all except the first; the queues of the lower digits differ.
    let begin = SystemTime::now();
    for milliseconds in [60_000, 1600, 1200, 800, 400] {
        let message = later(&milliseconds.to_string(), begin + Duration::from_millis(milliseconds));
        confirmed(amqp.enqueue(&topic, message)).await.unwrap();
    }
    for milliseconds in [400, 800, 1200, 1600] {
        assert_eq!(next_text(&mut source).await, milliseconds.to_string());
        let late = SystemTime::now().duration_since(begin + Duration::from_millis(milliseconds)).unwrap();
        assert!(late < TOLERANCE, "{milliseconds}: {late:?} late");
    }
    silent(&mut source).await;
}

#[tokio::test]
async fn a_delayed_message_is_published_to_whoever_is_there_then() {
    let topic = unique("audience");
    let amqp = connect("?routing_key=key").await.unwrap();
    let mut early = subscribe(&amqp, group(&topic, "early")).await;
    let channel = raw().await.create_channel().await.unwrap();
    let foreign = format!("{topic}.foreign");
    channel
        .queue_declare(foreign.as_str().into(), QueueDeclareOptions::default(), FieldTable::default())
        .await
        .unwrap();
    let exchange = || topic.as_str().into();
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(foreign.as_str().into(), exchange(), "eu.*".into(), options, none).await.unwrap();
    for key in ["eu.de", "us.tx"] {
        let message = Outbound { key: Some(key.into()), ..later(key, in_ms(4000)) };
        confirmed(amqp.enqueue(&topic, message)).await.unwrap();
    }
    let mut since = subscribe(&amqp, group(&topic, "since")).await;
    for source in [&mut early, &mut since] {
        let mut keys = Vec::new();
        for _ in 0..2 {
            let inbound = next(source).await;
            assert_eq!(inbound.key.as_deref(), inbound.payload.as_deref(), "the routing key is the key");
            keys.push(text(&inbound));
            settle(inbound, Disposition::Ack).await.unwrap();
        }
        keys.sort();
        assert_eq!(keys, ["eu.de", "us.tx"]);
        silent(source).await;
    }
    let get = || channel.basic_get(foreign.as_str().into(), BasicGetOptions { no_ack: true });
    assert_eq!(get().await.unwrap().expect("routed by its key").delivery.data, b"eu.de");
    assert!(get().await.unwrap().is_none(), "only what is bound");
}

/// Messages that no queue takes must not hold up other waiting messages.
#[tokio::test]
async fn a_topic_that_nobody_reads_holds_up_no_other() {
    let (topic, nobody) = (unique("read"), unique("unread"));
    let amqp = connect("?unroutable=reject").await.unwrap();
    warm(&amqp).await;
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    amqp.declare(&nobody).await.unwrap();
    // More than the 32 that a queue hands on at a time, in each queue that the next message may
    // pass.
    for _ in 0..3 {
        let time = in_ms(1000);
        let unread: Vec<_> = (0..1000).map(|_| amqp.enqueue(&nobody, later("x", time))).collect();
        for confirmation in unread {
            confirmed(confirmation).await.unwrap();
        }
    }
    let time = in_ms(1000);
    confirmed(amqp.enqueue(&topic, later("read", time))).await.unwrap();
    assert_eq!(next_text(&mut source).await, "read");
    let late = SystemTime::now().duration_since(time).unwrap();
    assert!(late < TOLERANCE, "{late:?} late");
}

#[tokio::test]
async fn many_delayed_at_once_all_come_and_none_twice() {
    const COUNT: usize = 2000;
    let topic = unique("storm");
    let amqp = connect("?max_in_flight=500").await.unwrap();
    warm(&amqp).await;
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let begin = SystemTime::now();
    for batch in (0..COUNT).collect::<Vec<_>>().chunks(500) {
        let delays = batch.iter().map(|n| (n, begin + Duration::from_millis(3000 + (*n as u64 * 7) % 500)));
        let publishes: Vec<_> = delays.map(|(n, time)| amqp.enqueue(&topic, later(&n.to_string(), time))).collect();
        for publish in publishes {
            confirmed(publish).await.unwrap();
        }
    }
    eprintln!("{COUNT} kept after {:?}", begin.elapsed().unwrap());
    let mut seen = vec![false; COUNT];
    for _ in 0..COUNT {
        let n: usize = next_text(&mut source).await.parse().unwrap();
        assert!(!std::mem::replace(&mut seen[n], true), "{n} twice");
    }
    eprintln!("all delivered after {:?}", begin.elapsed().unwrap());
    silent(&mut source).await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_before_it_is_sent() {
    let topic = unique("refused");
    let amqp = connect("").await.unwrap();
    amqp.declare(&topic).await.unwrap();
    let days = |days: u64| SystemTime::now() + Duration::from_secs(days * 86_400);
    let error = confirmed(amqp.enqueue(&topic, later("x", days(50)))).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::InvalidMessage, PublishOutcome::NotSent));
    assert!(error.to_string().contains("limit_ms"), "{error}");

    let mut headers = Headers::new();
    headers.append("large", "x".repeat(128_000));
    let message = Outbound { headers, ..later("x", in_ms(100)) };
    confirmed(amqp.enqueue(&topic, Outbound { deliver_at: None, ..message.clone() })).await.unwrap();
    let error = confirmed(amqp.enqueue(&topic, message)).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::TooLarge, PublishOutcome::NotSent));

    // No test creates the queues for that many days.
    let strict = connect("?topology=check").await.unwrap();
    let error = confirmed(strict.enqueue(&topic, later("x", days(40)))).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::NotFound, PublishOutcome::NotSent));
    assert!(error.to_string().contains("traced-broker.delay."), "names what is missing: {error}");
    confirmed(amqp.enqueue(&topic, outbound("x"))).await.unwrap();
}

/// Deletes a queue that no other test uses: the one for waits of 9 × 16⁵ steps, 42 hours.
#[tokio::test]
async fn a_wait_queue_that_is_deleted_fails_one_publish_and_is_created_again() {
    let topic = unique("deleted-wait");
    let amqp = connect("").await.unwrap();
    amqp.declare(&topic).await.unwrap();
    let wait = || later("x", SystemTime::now() + Duration::from_millis(9 << 24));
    confirmed(amqp.enqueue(&topic, wait())).await.unwrap();
    let channel = raw().await.create_channel().await.unwrap();
    let queue = || format!("traced-broker.delay.v1.{}ms", 9 << 24).into();
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue(), passive, FieldTable::default()).await.expect("it waits where it is documented to");
    channel.queue_delete(queue(), QueueDeleteOptions::default()).await.unwrap();
    let error = confirmed(amqp.enqueue(&topic, wait())).await.unwrap_err();
    assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Rejected, PublishOutcome::NotSent), "{error}");
    confirmed(amqp.enqueue(&topic, wait())).await.unwrap();
    channel.queue_delete(queue(), QueueDeleteOptions::default()).await.unwrap();
}

#[tokio::test]
async fn what_waits_for_a_topic_that_is_deleted_goes_with_it() {
    let topic = unique("deleted-topic");
    let amqp = connect("").await.unwrap();
    warm(&amqp).await;
    let _source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, later("gone", in_ms(1500)))).await.unwrap();
    let channel = raw().await.create_channel().await.unwrap();
    channel.exchange_delete(topic.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    let other = unique("kept-topic");
    let mut source = subscribe(&amqp, group(&other, "g")).await;
    confirmed(amqp.enqueue(&other, later("kept", in_ms(1000)))).await.unwrap();
    assert_eq!(next_text(&mut source).await, "kept", "not held up");
}

#[tokio::test]
async fn says_what_it_can_delay() {
    let amqp = connect("").await.unwrap();
    let expected = Capabilities::new();
    let capabilities = amqp.capabilities();
    assert_eq!((capabilities.retry, capabilities.delayed_publish), (expected.retry, true));
    let subscription = group(&unique("positions"), "g");
    for start in [traced_broker::Start::Offset(1), traced_broker::Start::Time(SystemTime::now())] {
        let error = amqp.subscribe(&subscription.clone().start(start)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(amqp.reposition(&subscription, start).await.unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
