//! Messages that end the process of their handler, on the embedded broker: a process ends without
//! dropping anything.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;

use traced_broker::adapters::memory::Memory;
use traced_broker::driver::{Driver, Inbound, Source};
use traced_broker::names::header;
use traced_broker::{HandlerError, Message, Received, Subscription, Traced, TracedBroker, TracedBrokerExt};

use crate::late::{Late, Settling};

fn workers() -> Subscription {
    Subscription::new("orders").group("workers").dead_letter("orders.dead")
}

async fn take(source: &mut Source) -> Inbound {
    poll_fn(|cx| source.poll_next(cx)).await.unwrap().unwrap()
}

/// Takes all messages in a process that ends with these in the hands of a handler.
async fn end_with(hub: &str, fatal: &[&str]) -> Vec<Option<u32>> {
    let process = Memory::named(hub);
    let mut source = process.subscribe(&workers()).await.unwrap();
    let mut lost = Vec::new();
    for _ in 0..3 {
        let inbound = take(&mut source).await;
        lost.push(inbound.lost_trials);
        let payload = String::from_utf8(inbound.payload.as_deref().unwrap().to_vec()).unwrap();
        if fatal.contains(&payload.as_str()) && inbound.lost_trials.is_some() {
            inbound.handle.begin_trial().await.unwrap();
        }
        // Nothing runs in a process that has ended.
        std::mem::forget(inbound.handle);
    }
    process.close().await.unwrap();
    lost
}

/// Consumes until `count` messages are handled, and returns what ran beside the one with lost
/// trials.
async fn consume(hub: &str, count: usize) -> (Vec<String>, bool) {
    let broker = Traced::new(Memory::named(hub));
    let (handled, running, crowded) = (Mutex::new(Vec::new()), Mutex::new(0), Mutex::new(false));
    let handler = async |message: Received| {
        let payload = String::from_utf8(message.payload().to_vec()).unwrap();
        *running.lock() += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
        *crowded.lock() |= payload == "b" && *running.lock() > 1;
        *running.lock() -= 1;
        handled.lock().push(payload);
        Ok::<_, HandlerError>(())
    };
    let enough = async {
        while handled.lock().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    broker.consume(workers(), handler).concurrency(4).run_until(enough).await.unwrap();
    broker.close().await.unwrap();
    let mut handled = handled.into_inner();
    handled.sort();
    (handled, crowded.into_inner())
}

/// Publishes three messages, and returns a connection that keeps the broker.
async fn published(hub: &str) -> Memory {
    let broker = Traced::new(Memory::named(hub));
    drop(broker.subscribe(workers()).await.unwrap());
    for payload in ["a", "b", "c"] {
        broker.publish("orders", Message::new(payload)).await.unwrap();
    }
    broker.close().await.unwrap();
    Memory::named(hub)
}

#[tokio::test]
async fn a_message_is_a_suspect_and_tried_alone_and_rejected_in_the_end() {
    let hub = "trials-rejected";
    let _broker = published(hub).await;
    assert_eq!(end_with(hub, &["b"]).await, [None; 3]);
    assert_eq!(end_with(hub, &["b"]).await, [None; 3]);
    assert_eq!(end_with(hub, &["b"]).await, [Some(0); 3]);
    assert_eq!(end_with(hub, &["b"]).await, [Some(0), Some(1), Some(0)]);
    assert_eq!(end_with(hub, &["b"]).await, [Some(0), Some(2), Some(0)]);
    let (handled, _) = consume(hub, 2).await;
    assert_eq!(handled, ["a", "c"]);
    let broker = Traced::new(Memory::named(hub));
    let mut letters = broker.subscribe(Subscription::new("orders.dead").group("support")).await.unwrap();
    let letter = letters.next().await.unwrap().unwrap();
    assert_eq!(letter.message().payload(), "b");
    let reason = letter.message().headers().get_str(header::DEAD_LETTER_REASON);
    assert_eq!(reason, Some("given up: 3 processes ended while its handler ran"));
    letter.ack().await.unwrap();
}

#[tokio::test]
async fn the_last_trial_runs_alone_and_acquits() {
    let hub = "trials-acquitted";
    let _broker = published(hub).await;
    for _ in 0..4 {
        end_with(hub, &["b"]).await;
    }
    assert_eq!(consume(hub, 3).await, (vec!["a".into(), "b".into(), "c".into()], false));
}

#[tokio::test]
async fn nothing_begins_until_the_message_that_ran_alone_is_settled() {
    let hub = "trials-settled";
    let _broker = published(hub).await;
    for _ in 0..4 {
        end_with(hub, &["b"]).await;
    }
    let settling = Settling::default();
    let broker = Traced::new(Late { inner: Memory::named(hub), settling: Arc::clone(&settling) });
    let began = Mutex::new(Vec::new());
    let handler = async |message: Received| {
        let is_early = settling.lock().iter().any(|payload| payload == b"b");
        began.lock().push((String::from_utf8(message.payload().to_vec()).unwrap(), is_early));
        Ok::<_, HandlerError>(())
    };
    let all = async {
        while began.lock().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    broker.consume(workers(), handler).concurrency(4).run_until(all).await.unwrap();
    broker.close().await.unwrap();
    assert_eq!(began.into_inner(), [("a".into(), false), ("b".into(), false), ("c".into(), false)]);
}

#[tokio::test]
async fn the_last_trial_is_a_batch_of_its_own() {
    let hub = "trials-batch";
    let _broker = published(hub).await;
    for _ in 0..4 {
        end_with(hub, &["b"]).await;
    }
    let broker = Traced::new(Memory::named(hub));
    let batches = Mutex::new(Vec::new());
    let handler = async |batch: Vec<Received>| {
        let payloads = batch.iter().map(|message| message.payload().to_vec());
        batches.lock().push(String::from_utf8(payloads.flatten().collect()).unwrap());
        Ok::<_, HandlerError>(Vec::new())
    };
    let enough = async {
        while batches.lock().concat().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    broker.consume_batch(workers(), handler).size(3).run_until(enough).await.unwrap();
    assert_eq!(batches.into_inner(), ["ac", "b"]);
}

#[tokio::test]
async fn what_is_heard_of_is_no_lost_trial() {
    let hub = "trials-heard";
    let _broker = published(hub).await;
    for _ in 0..3 {
        end_with(hub, &[]).await;
    }
    for _ in 0..5 {
        let process = Memory::named(hub);
        let mut source = process.subscribe(&workers()).await.unwrap();
        let inbound = take(&mut source).await;
        assert_eq!(inbound.lost_trials, Some(0));
        inbound.handle.begin_trial().await.unwrap();
        drop(inbound);
        process.close().await.unwrap();
    }
}
