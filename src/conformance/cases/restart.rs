//! The broker is killed and comes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::super::failure::{Checked, Failure, check};
use super::super::harness::Mortal;
use super::super::recorder::Recorder;
use super::super::world::{World, numbers, text};
use crate::broker::{Broker, Traced, TracedBroker};
use crate::consumer::Deliveries;
use crate::message::Message;

super::super::case::cases! { Restart:
    loses_nothing_confirmed_when_killed_twice [Durable, AtLeastOnce]
        "Killed at a third and at half of 10,000 messages of 100 publishers: what was confirmed arrives, what was not sent does not, all as it was.";
    brings_back_what_was_unsettled_when_killed [Durable, AtLeastOnce]
        "After a kill all that was not acknowledged comes again on the same stream, which goes on.";
}

const MESSAGES: usize = 10_000;
const PUBLISHERS: usize = 100;
const PREFETCH: usize = 500;
/// How long nothing may happen before the run counts as stuck.
const STUCK: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(100);

pub(super) async fn mortal(world: &World) -> Checked<Arc<dyn Mortal>> {
    let broker = world.harness.start_mortal().await?;
    broker.ok_or_else(|| {
        Failure::new("a broker whose confirms outlive it is killed to see whether they do: the harness starts none")
    })
}

async fn loses_nothing_confirmed_when_killed_twice(world: &World) -> Checked {
    let mortal = mortal(world).await?;
    let broker = Traced::new(mortal.connect().await?);
    let recorder = Arc::new(Recorder::default());
    let deliveries = broker.subscribe(world.group("g").prefetch(PREFETCH)).await?;
    tokio::time::sleep(mortal.settling_time()).await;
    let consumer = tokio::spawn(consume(deliveries, Arc::clone(&recorder)));
    let next = Arc::new(AtomicUsize::new(0));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| (broker.clone(), world.topic.clone(), Arc::clone(&next), Arc::clone(&recorder)))
        .map(|(broker, topic, next, recorder)| tokio::spawn(publish(broker, topic, next, recorder)))
        .collect();

    for threshold in [MESSAGES / 3, MESSAGES / 2] {
        progress("publishing", &recorder, Recorder::confirmed_count, threshold).await?;
        mortal.kill_and_restart().await?;
    }
    for publisher in publishers {
        publisher.await.map_err(|error| Failure::new(format!("publishing does not panic: {error}")))??;
    }
    progress("delivering", &recorder, Recorder::arrived_count, MESSAGES).await?;
    check!(!consumer.is_finished(), "the stream goes on until the broker is closed");
    consumer.abort();
    let _ = consumer.await;
    broker.close().await?;
    recorder.check(MESSAGES)?;

    // What is acknowledged after the last restart stays acknowledged.
    let again = Traced::new(mortal.connect().await?);
    let mut deliveries = again.subscribe(world.group("g").prefetch(PREFETCH)).await?;
    let mut late = 0;
    while let Ok(Some(Ok(delivery))) = tokio::time::timeout(4 * world.harness.quiet(), deliveries.next()).await {
        late += 1;
        delivery.ack().await?;
    }
    check!(late <= PREFETCH, "no more comes again than was unsettled when the consumer was stopped: {late} messages");
    again.close().await?;
    Ok(())
}

/// Publishes numbers until all are taken; each attempt has a payload of its own.
async fn publish(broker: Broker, topic: String, next: Arc<AtomicUsize>, recorder: Arc<Recorder>) -> Checked {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= MESSAGES {
            return Ok(());
        }
        for attempt in 0.. {
            let (payload, message) = Recorder::attempt(number, attempt);
            match broker.publish(&topic, message).await {
                Ok(_) => {
                    recorder.confirmed(payload);
                    break;
                }
                Err(error) => {
                    recorder.failed(payload, &error);
                    check!(error.is_retryable(), "an outage passes: {error:?}");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Acknowledges everything, with many in flight; a lost settlement comes again.
async fn consume(deliveries: Deliveries, recorder: Arc<Recorder>) {
    let handling = deliveries.for_each_concurrent(200, |item| async {
        match item {
            Ok(delivery) => {
                recorder.delivered(&delivery);
                if delivery.ack().await.is_ok() {
                    recorder.settled();
                }
            }
            Err(error) => recorder.trouble(&error),
        }
    });
    handling.await;
}

/// Waits until `count` reaches `goal`, as long as it grows.
async fn progress(what: &str, recorder: &Recorder, count: fn(&Recorder) -> usize, goal: usize) -> Checked {
    let mut last = (count(recorder), Instant::now());
    while last.0 < goal {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = count(recorder);
        if now > last.0 {
            last = (now, Instant::now());
        }
        check!(
            last.1.elapsed() < STUCK,
            "{what} goes on: it stands at {now} of {goal} since {STUCK:?}; {}",
            recorder.summary()
        );
    }
    Ok(())
}

async fn brings_back_what_was_unsettled_when_killed(world: &World) -> Checked {
    const COUNT: usize = 20;
    const SETTLED: usize = 8;
    let mortal = mortal(world).await?;
    let broker = Traced::new(mortal.connect().await?);
    let mut deliveries = broker.subscribe(world.group("g").prefetch(COUNT)).await?;
    for number in numbers(COUNT) {
        broker.publish(&world.topic, Message::new(number).key("one")).await?;
    }
    world.drain(&mut deliveries, SETTLED).await?;
    let mut unsettled = Vec::new();
    while unsettled.len() < COUNT - SETTLED {
        unsettled.push(world.next(&mut deliveries).await?);
    }
    tokio::time::sleep(mortal.settling_time()).await;
    mortal.kill_and_restart().await?;
    drop(unsettled);
    // On the same stream, once the connection is restored.
    let expected: BTreeSet<String> = numbers(COUNT).split_off(SETTLED).into_iter().collect();
    let mut again = BTreeSet::new();
    let coming = async {
        while !expected.is_subset(&again) {
            if let Some(Ok(delivery)) = deliveries.next().await {
                again.insert(text(delivery.message().payload()));
                let _ = delivery.ack().await;
            }
        }
    };
    let came = tokio::time::timeout(STUCK, coming).await;
    check!(came.is_ok(), "all that was unsettled comes again: of {expected:?} came {again:?}");
    publish_once_it_can(&broker, &world.topic).await?;
    // It takes as long as the client takes to find its way back, and what was settled just before the kill may come again.
    let goes_on = async {
        while let Some(item) = deliveries.next().await {
            let Ok(delivery) = item else { continue };
            let last = text(delivery.message().payload()) == "after";
            let _ = delivery.ack().await;
            if last {
                return true;
            }
        }
        false
    };
    let goes_on = tokio::time::timeout(STUCK, goes_on).await;
    check!(matches!(goes_on, Ok(true)), "the stream goes on and brings what is published after the kill: {goes_on:?}");
    broker.close().await?;
    Ok(())
}

async fn publish_once_it_can(broker: &Broker, topic: &str) -> Checked {
    let mut result = broker.publish(topic, Message::new("after").key("one")).await;
    for _ in 0..100 {
        match &result {
            Err(error) if error.is_retryable() => tokio::time::sleep(AGAIN).await,
            _ => break,
        }
        result = broker.publish(topic, Message::new("after").key("one")).await;
    }
    result.map(drop).map_err(Failure::from)
}
