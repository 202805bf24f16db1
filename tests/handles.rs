//! Two handles on one driver share the bound of publishes in flight, closing, and the marks of
//! replays.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::join_all;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use parking_lot::Mutex;
use traced_broker::adapters::memory::Memory;
use traced_broker::capability::Capabilities;
use traced_broker::driver::{Confirmer, Destination, Driver, Identity, Outbound, Source};
use traced_broker::names::attribute;
use traced_broker::{
    ErrorKind, HandlerError, Message, Receipt, Received, Result, Start, Subscription, Topic, Traced, TracedBroker,
};

const BOUND: usize = 2;

/// A driver that confirms publishes when the test says so.
#[derive(Debug, Clone)]
struct Slow {
    memory: Arc<Memory>,
    identity: Identity,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    unconfirmed: Mutex<Vec<Confirmer<Receipt>>>,
    /// The maximum number of unconfirmed publishes so far.
    most: AtomicUsize,
    /// The number of unconfirmed publishes when the driver was closed.
    at_close: Mutex<Option<usize>>,
}

impl Slow {
    fn new() -> Self {
        let identity = Identity::new("memory").with_max_in_flight(BOUND);
        Self { memory: Arc::new(Memory::new()), identity, state: Arc::default() }
    }
}

impl State {
    /// Confirms the oldest publish, once there is one.
    async fn confirm(&self) {
        while self.unconfirmed.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.unconfirmed.lock().remove(0).confirm(Ok(Receipt::confirmed()));
    }
}

#[async_trait]
impl Driver for Slow {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        self.memory.capabilities()
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.memory.declare(topic).await
    }

    fn publish(&self, _topic: &Topic, _message: Outbound, confirmer: Confirmer<Receipt>) {
        let mut unconfirmed = self.state.unconfirmed.lock();
        unconfirmed.push(confirmer);
        self.state.most.fetch_max(unconfirmed.len(), Ordering::Relaxed);
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        self.memory.subscribe(subscription).await
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        self.memory.reposition(subscription, start).await
    }

    async fn ping(&self) -> Result<()> {
        self.memory.ping().await
    }

    async fn close(&self) -> Result<()> {
        *self.state.at_close.lock() = Some(self.state.unconfirmed.lock().len());
        self.memory.close().await
    }
}

#[tokio::test]
async fn one_bound_holds_for_the_publishes_of_both() {
    let driver = Slow::new();
    let (one, other) = (Traced::new(driver.clone()), Traced::new(driver.clone()));
    assert!(join_in_flight(&driver, &one, &other).await > BOUND, "two brokers on one driver exceed its bound");

    let driver = Slow::new();
    let one = Traced::new(driver.clone());
    let other = one.clone().with_settle_spans();
    assert_eq!(join_in_flight(&driver, &one, &other).await, BOUND);
}

/// Publishes by both, and returns the maximum number of publishes that were unconfirmed at a time.
async fn join_in_flight(driver: &Slow, one: &Traced<Slow>, other: &Traced<Slow>) -> usize {
    let publishes = (0..8).map(|number| {
        let broker = if number % 2 == 0 { one } else { other };
        broker.publish("orders", Message::new("shoes"))
    });
    let confirming = async {
        for _ in 0..8 {
            // Time for a publish beyond the bound to show.
            tokio::time::sleep(Duration::from_millis(5)).await;
            driver.state.confirm().await;
        }
    };
    let (results, ()) = tokio::join!(join_all(publishes), confirming);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    driver.state.most.load(Ordering::Relaxed)
}

#[tokio::test]
async fn closing_one_waits_for_the_publishes_of_the_other() {
    let driver = Slow::new();
    let one = Traced::new(driver.clone());
    let other = one.clone().with_settle_spans();
    let publishing = tokio::spawn({
        let one = one.clone();
        async move { one.publish("orders", Message::new("shoes")).await }
    });
    while driver.state.most.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let closing = tokio::spawn(async move { other.close().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!closing.is_finished(), "a publish of the other handle is unconfirmed");
    driver.state.confirm().await;

    assert!(publishing.await.unwrap().is_ok());
    closing.await.unwrap().unwrap();
    assert_eq!(*driver.state.at_close.lock(), Some(0));
    let error = one.publish("orders", Message::new("a hat")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_group_moved_by_one_is_a_replay_for_the_other() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let one = Traced::new(Memory::new());
    let other = one.clone().with_tracer_provider(&provider);
    let workers = Subscription::new("orders").group("workers");

    one.publish("orders", Message::new("shoes")).await.unwrap();
    let mut deliveries = other.subscribe(workers.clone()).await.unwrap();
    process(deliveries.next().await.unwrap().unwrap()).await;
    one.reposition(&workers, Start::Earliest).await.unwrap();
    process(deliveries.next().await.unwrap().unwrap()).await;

    let spans = exporter.get_finished_spans().unwrap();
    let hops = spans.iter().map(|span| {
        let hop = span.attributes.iter().find(|pair| pair.key.as_str() == attribute::HOP);
        hop.map(|pair| pair.value.to_string())
    });
    assert_eq!(hops.collect::<Vec<_>>(), [None, Some("replay".to_owned())]);
}

async fn process(delivery: traced_broker::Delivery) {
    delivery.process(async |_message: Received| Ok::<_, HandlerError>(())).await.unwrap();
}
