//! A broker that is killed and restarted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use crate::broker::{Broker, Deliveries, Traced, TracedBroker};
use crate::conformance::case_context::{CaseContext, numbers, text};
use crate::conformance::failure::{Checked, Failure, check};
use crate::conformance::harness::Killable;
use crate::conformance::recorder::Recorder;
use crate::message::Message;

crate::conformance::case::cases! { Restart:
    loses_nothing_confirmed_when_killed_twice [Durable, AtLeastOnce]
        "The broker is killed at a third and at half of 10,000 messages from 100 publishers: every confirmed message arrives intact, and no NotSent one.";
    brings_back_what_was_unsettled_when_killed [Durable, AtLeastOnce]
        "After a kill, all unacknowledged messages are redelivered on the same stream, which goes on.";
}

const MESSAGES: usize = 10_000;
const PUBLISHERS: usize = 100;
const PREFETCH: usize = 500;
/// Maximum time without progress before the run counts as stuck.
const STUCK: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(100);

pub(super) async fn killable(case: &CaseContext) -> Checked<Arc<dyn Killable>> {
    let broker = case.harness.start_mortal().await?;
    broker.ok_or_else(|| {
        Failure::new("a harness whose broker's confirms outlive it starts a broker to kill: it starts none")
    })
}

async fn loses_nothing_confirmed_when_killed_twice(case: &CaseContext) -> Checked {
    let killable = killable(case).await?;
    let broker = Traced::new(killable.connect().await?);
    let recorder = Arc::new(Recorder::default());
    let deliveries = broker.subscribe(case.group("g").prefetch(PREFETCH)).await?;
    tokio::time::sleep(killable.settling_time()).await;
    let consumer = tokio::spawn(consume(deliveries, Arc::clone(&recorder)));
    let next = Arc::new(AtomicUsize::new(0));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| (broker.clone(), case.topic.clone(), Arc::clone(&next), Arc::clone(&recorder)))
        .map(|(broker, topic, next, recorder)| tokio::spawn(publish(broker, topic, next, recorder)))
        .collect();

    for threshold in [MESSAGES / 3, MESSAGES / 2] {
        progress("publishing", &recorder, Recorder::confirmed_count, threshold).await?;
        killable.kill_and_restart().await?;
    }
    for publisher in publishers {
        publisher.await.map_err(|error| Failure::new(format!("publishing does not panic: {error}")))??;
    }
    let delivered = progress("delivering", &recorder, Recorder::arrived_count, MESSAGES).await;
    delivered.map_err(|stuck| {
        recorder.missing().map_or(stuck.clone(), |missing| missing.followed_by(&format!("; {stuck}")))
    })?;
    check!(!consumer.is_finished(), "the stream goes on until the broker is closed");
    consumer.abort();
    let _ = consumer.await;
    broker.close().await?;
    recorder.check(MESSAGES)?;

    // Messages acknowledged after the last restart stay acknowledged.
    let again = Traced::new(killable.connect().await?);
    let mut deliveries = again.subscribe(case.group("g").prefetch(PREFETCH)).await?;
    let mut late = 0;
    while let Ok(Some(Ok(delivery))) = tokio::time::timeout(4 * case.harness.quiet(), deliveries.next()).await {
        late += 1;
        delivery.ack().await?;
    }
    check!(late <= PREFETCH, "only what was unsettled when the consumer stopped is redelivered: {late} messages");
    again.close().await?;
    Ok(())
}

/// Publishes numbers until all are taken. Each attempt has its own payload.
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

/// Acknowledges everything, with many messages in flight. A message whose settlement is lost is
/// redelivered.
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

/// Waits until `count` reaches `goal`. Fails if it stops growing for [`STUCK`].
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
            "{what} goes on: no progress from {now} of {goal} for {STUCK:?}; {}",
            recorder.summary()
        );
    }
    Ok(())
}

async fn brings_back_what_was_unsettled_when_killed(case: &CaseContext) -> Checked {
    const COUNT: usize = 20;
    const SETTLED: usize = 8;
    let killable = killable(case).await?;
    let broker = Traced::new(killable.connect().await?);
    let mut deliveries = broker.subscribe(case.group("g").prefetch(COUNT)).await?;
    for number in numbers(COUNT) {
        broker.publish(&case.topic, Message::new(number).key("one")).await?;
    }
    case.drain(&mut deliveries, SETTLED).await?;
    let mut unsettled = Vec::new();
    while unsettled.len() < COUNT - SETTLED {
        unsettled.push(case.next(&mut deliveries).await?);
    }
    tokio::time::sleep(killable.settling_time()).await;
    killable.kill_and_restart().await?;
    drop(unsettled);
    // Redelivered on the same stream, once the connection is restored.
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
    check!(came.is_ok(), "all unsettled messages are redelivered: {again:?} of {expected:?}");
    publish_once_it_can(&broker, &case.topic).await?;
    // This takes until the client has reconnected. Messages settled just before the kill may be
    // redelivered.
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
    check!(matches!(goes_on, Ok(true)), "the stream goes on with messages published after the kill: {goes_on:?}");
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
