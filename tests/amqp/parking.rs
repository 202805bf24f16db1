//! Dead letters that are parked only if no other queue takes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use traced_broker::adapters::amqp::Amqp;
use traced_broker::driver::{Disposition, Driver, DriverExt};
use traced_broker::{ErrorKind, Topic};

use crate::driving::*;

/// Returns the number of messages that are parked.
async fn parked(dead: &Topic) -> u32 {
    let channel = raw().await.create_channel().await.unwrap();
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let queue = channel.queue_declare(format!("{dead}.parked").into(), passive, FieldTable::default()).await.unwrap();
    queue.message_count()
}

async fn publish(amqp: &Amqp, dead: &Topic, letters: std::ops::Range<u32>) {
    for n in letters {
        let mut letter = outbound(n.to_string());
        letter.key = Some("k".into());
        letter.headers.append("traceparent", "00-…");
        confirmed(amqp.enqueue(dead, letter)).await.unwrap();
    }
}

/// The topology is one of a program that parks all letters.
#[tokio::test]
async fn letters_that_are_read_are_not_parked() {
    for options in ["?parked=unread", "?parked=unread&unroutable=reject", "?parked=unread&routing_key=key"] {
        let (topic, dead) = (unique("parking"), unique("parking-dead"));
        let all = connect("").await.unwrap();
        drop(subscribe(&all, group(&topic, "g").dead_letter(dead.as_str())).await);
        publish(&all, &dead, 0..1).await;
        all.close().await.unwrap();
        assert_eq!(parked(&dead).await, 1, "{options}");

        let amqp = connect(options).await.unwrap();
        let _source = subscribe(&amqp, group(&topic, "g").dead_letter(dead.as_str())).await;
        publish(&amqp, &dead, 1..3).await;
        assert_eq!(parked(&dead).await, 3, "{options}: no other queue takes them");
        let mut workers = subscribe(&amqp, group(&dead, "workers")).await;
        publish(&amqp, &dead, 3..53).await;
        for n in 3..53 {
            assert_eq!(next_text(&mut workers).await, n.to_string());
        }
        assert_eq!(parked(&dead).await, 3, "{options}");

        let reading = connect(options).await.unwrap();
        let mut letters = subscribe(&reading, group(&dead, "parked")).await;
        for n in 0..3 {
            let letter = next(&mut letters).await;
            assert_eq!((text(&letter), letter.key.as_deref()), (n.to_string(), Some(&b"k"[..])), "{options}");
            assert_eq!(letter.headers.iter().collect::<Vec<_>>(), [("traceparent", "00-…".as_bytes())], "{options}");
            settle(letter, Disposition::Ack).await.unwrap();
        }
        publish(&amqp, &dead, 53..54).await;
        assert_eq!(next_text(&mut workers).await, "53");
        silent(&mut letters).await;
    }
}

/// Threads that keep the processors busy hold up the caller between its two looks at the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_that_are_answered_at_once_are_parked_too() {
    let (topic, dead) = (unique("parking"), unique("parking-dead"));
    let amqp = connect("?parked=unread").await.unwrap();
    let _source = subscribe(&amqp, group(&topic, "g").dead_letter(dead.as_str())).await;
    let is_over = Arc::new(AtomicBool::new(false));
    for _ in 0..4 {
        let is_over = Arc::clone(&is_over);
        std::thread::spawn(move || while !is_over.load(Ordering::Relaxed) {});
    }
    publish(&amqp, &dead, 0..300).await;
    is_over.store(true, Ordering::Relaxed);
    assert_eq!(parked(&dead).await, 300);
}

#[tokio::test]
async fn a_value_that_is_none_is_refused() {
    assert_eq!(connect("?parked=7d").await.unwrap_err().kind(), ErrorKind::InvalidConfig);
}
