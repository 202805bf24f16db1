//! Servers killed with SIGKILL and restarted, twice, while a hundred publishers send ten thousand messages and a group
//! consumes them: nothing confirmed is lost, nothing that was certainly not sent appears.
//!
//! Run by `tests/run`; each broker's module needs its feature.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]
#![allow(dead_code, unused_imports, reason = "a build without brokers has no module")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use support::{Kind, Server};
use traced_broker::{Broker, Deliveries, Message, PublishOutcome, Subscription, TracedBroker, connect};

const MESSAGES: usize = 10_000;
const PUBLISHERS: usize = 100;
/// How long nothing may happen before the run counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
const TOPIC: &str = "restarted";
/// RabbitMQ enters a new quorum queue in a register that it writes to disk every five seconds; killed before that, the queue finds no
/// leader when it comes back. Nothing a client does changes that.
const REGISTRATION: Duration = Duration::from_secs(6);

/// What became of every attempt at publishing, and what was delivered, by the payload that is unique to the attempt.
#[derive(Default)]
struct Recorder {
    confirmed: Mutex<BTreeSet<String>>,
    unknown: Mutex<BTreeSet<String>>,
    not_sent: Mutex<BTreeSet<String>>,
    delivered: Mutex<BTreeMap<String, usize>>,
    settled: AtomicUsize,
    last_error: Mutex<String>,
}

#[cfg(feature = "kafka")]
mod kafka {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn loses_nothing_confirmed() {
        super::loses_nothing_confirmed(super::Kind::Kafka).await;
    }
}

#[cfg(feature = "amqp")]
mod amqp {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn loses_nothing_confirmed() {
        super::loses_nothing_confirmed(super::Kind::RabbitMq).await;
    }
}

#[cfg(feature = "nats")]
mod nats {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn loses_nothing_confirmed() {
        super::loses_nothing_confirmed(super::Kind::Nats).await;
    }
}

#[cfg(feature = "redis")]
mod redis {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn loses_nothing_confirmed() {
        super::loses_nothing_confirmed(super::Kind::Redis).await;
    }
}

async fn loses_nothing_confirmed(kind: Kind) {
    let server = blocking(move || Arc::new(Server::start(kind))).await;
    let broker = connect(server.url()).await.unwrap();
    let recorder = Arc::new(Recorder::default());
    let deliveries = broker.subscribe(Subscription::new(TOPIC).group("g").prefetch(500)).await.unwrap();
    if kind == Kind::RabbitMq {
        tokio::time::sleep(REGISTRATION).await;
    }
    let consumer = tokio::spawn(consume(deliveries, Arc::clone(&recorder)));
    let next = Arc::new(AtomicUsize::new(0));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| tokio::spawn(publish(broker.clone(), Arc::clone(&next), Arc::clone(&recorder))))
        .collect();

    for threshold in [MESSAGES / 3, MESSAGES / 2] {
        progress("publishing", &recorder, || recorder.confirmed.lock().len(), threshold).await;
        let server = Arc::clone(&server);
        blocking(move || {
            server.kill();
            server.restart();
        })
        .await;
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let all = recorder.confirmed.lock().len();
    progress("delivering what was confirmed", &recorder, || all - recorder.missing().len(), all).await;
    consumer.abort();
    let _ = consumer.await;
    broker.close().await.unwrap();

    recorder.check();
    // What is acknowledged after the last restart stays acknowledged: nothing is handed out again.
    let again = connect(server.url()).await.unwrap();
    let mut deliveries = again.subscribe(Subscription::new(TOPIC).group("g").prefetch(500)).await.unwrap();
    let mut late = 0;
    while let Ok(Some(Ok(delivery))) = tokio::time::timeout(Duration::from_secs(3), deliveries.next()).await {
        late += 1;
        delivery.ack().await.unwrap();
    }
    assert!(late <= 500, "{late} messages came again, more than were unsettled when the consumer was stopped");
    again.close().await.unwrap();
}

/// Publishes numbers until all are taken; each attempt has a payload of its own.
async fn publish(broker: Broker, next: Arc<AtomicUsize>, recorder: Arc<Recorder>) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= MESSAGES {
            return;
        }
        for attempt in 0.. {
            let payload = format!("{number}/{attempt}");
            match broker.publish(TOPIC, Message::new(payload.clone()).key(number.to_string())).await {
                Ok(_) => {
                    recorder.confirmed.lock().insert(payload);
                    break;
                }
                Err(error) => {
                    let set = match error.publish_outcome() {
                        PublishOutcome::NotSent => &recorder.not_sent,
                        _ => &recorder.unknown,
                    };
                    set.lock().insert(payload);
                    *recorder.last_error.lock() = format!("{error:?}");
                    assert!(error.is_retryable(), "an outage passes: {error:?}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Acknowledges everything, with many in flight; a lost settlement comes again.
async fn consume(deliveries: Deliveries, recorder: Arc<Recorder>) {
    deliveries
        .for_each_concurrent(200, |item| async {
            match item {
                Ok(delivery) => {
                    let payload = String::from_utf8(delivery.message().payload().to_vec()).unwrap();
                    *recorder.delivered.lock().entry(payload).or_default() += 1;
                    if delivery.ack().await.is_ok() {
                        recorder.settled.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) => eprintln!("reported by the stream: {error}"),
            }
        })
        .await;
    panic!("the stream ended before the broker was closed");
}

impl Recorder {
    fn missing(&self) -> Vec<String> {
        let delivered = self.delivered.lock();
        self.confirmed.lock().iter().filter(|payload| !delivered.contains_key(*payload)).cloned().collect()
    }

    fn check(&self) {
        let (confirmed, unknown, not_sent) = (self.confirmed.lock(), self.unknown.lock(), self.not_sent.lock());
        let delivered = self.delivered.lock();
        let twice: usize = delivered.values().filter(|times| **times > 1).count();
        eprintln!(
            "confirmed {}, unknown {}, not sent {}; delivered {}, more than once {twice}, acknowledged {}",
            confirmed.len(),
            unknown.len(),
            not_sent.len(),
            delivered.len(),
            self.settled.load(Ordering::Relaxed),
        );
        assert_eq!(confirmed.len(), MESSAGES);
        for payload in delivered.keys() {
            assert!(!not_sent.contains(payload), "{payload} was certainly not sent and was delivered");
            assert!(confirmed.contains(payload) || unknown.contains(payload), "{payload} was never published");
        }
    }
}

/// Waits until `count` reaches `goal`, as long as it grows.
async fn progress(what: &str, recorder: &Recorder, count: impl Fn() -> usize, goal: usize) {
    let mut last = (count(), tokio::time::Instant::now());
    while last.0 < goal {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = count();
        if now > last.0 {
            last = (now, tokio::time::Instant::now());
        }
        assert!(
            last.1.elapsed() < PATIENCE,
            "stuck while {what}: {now} of {goal}; last: {}",
            recorder.last_error.lock()
        );
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
