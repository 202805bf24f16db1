//! A driver that answers publishes when the test says so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use traced_broker::adapters::memory::Memory;
use traced_broker::capability::Capabilities;
use traced_broker::driver::{Confirmer, Destination, Driver, Identity, Outbound, Source};
use traced_broker::{Message, Receipt, Result, Start, Subscription, Topic, Traced, TracedBroker};

/// The number of declarations that may end unless a test says otherwise.
const FREE: usize = 100_000;

#[derive(Debug, Clone)]
pub(crate) struct Manual {
    memory: Arc<Memory>,
    identity: Identity,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    given: Mutex<Vec<String>>,
    unanswered: Mutex<VecDeque<Confirmer<Receipt>>>,
    changed: Notify,
    /// The declarations that may end.
    declarations: Semaphore,
    declared: Mutex<Vec<String>>,
}

impl Manual {
    pub(crate) fn new(places: usize) -> Self {
        let state = State {
            given: Mutex::default(),
            unanswered: Mutex::default(),
            changed: Notify::new(),
            declarations: Semaphore::new(FREE),
            declared: Mutex::default(),
        };
        let identity = Identity::new("memory").with_max_in_flight(places);
        Self { memory: Arc::new(Memory::new()), identity, state: Arc::new(state) }
    }

    pub(crate) fn with_limit(places: usize, limit: Duration) -> Self {
        let driver = Self::new(places);
        Self { identity: driver.identity.clone().with_delivery_timeout(limit), ..driver }
    }

    /// Returns a driver whose declarations wait for [`let_declare`](Self::let_declare).
    pub(crate) fn undeclared(places: usize) -> Self {
        let driver = Self::new(places);
        driver.state.declarations.forget_permits(FREE);
        driver
    }

    pub(crate) fn let_declare(&self) {
        self.state.declarations.add_permits(1);
    }

    /// Returns the payloads of the messages that it was given, in order.
    pub(crate) fn given(&self) -> Vec<String> {
        self.state.given.lock().clone()
    }

    pub(crate) fn declared(&self) -> Vec<String> {
        self.state.declared.lock().clone()
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.state.unanswered.lock().len()
    }

    /// Takes the confirmer of the oldest unanswered publish.
    pub(crate) fn take(&self) -> Confirmer<Receipt> {
        self.state.unanswered.lock().pop_front().expect("an unanswered publish")
    }

    pub(crate) fn confirm(&self) {
        self.take().confirm(Ok(Receipt::confirmed()));
    }

    /// Waits until it was given so many messages.
    pub(crate) async fn was_given(&self, messages: usize) {
        loop {
            let changed = self.state.changed.notified();
            if self.state.given.lock().len() >= messages {
                return;
            }
            changed.await;
        }
    }

    /// Confirms each publish from now on, until it is dropped.
    pub(crate) fn confirm_all(&self) -> impl Drop + use<> {
        let driver = self.clone();
        let task = tokio::spawn(async move {
            loop {
                let changed = driver.state.changed.notified();
                while driver.unanswered() > 0 {
                    driver.confirm();
                }
                changed.await;
            }
        });
        tokio_util::task::AbortOnDropHandle::new(task)
    }
}

#[async_trait]
impl Driver for Manual {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        self.memory.capabilities()
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.state.declarations.acquire().await.unwrap().forget();
        self.state.declared.lock().push(topic.to_string());
        Ok(Destination::new())
    }

    fn publish(&self, _: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        let payload = message.payload.unwrap_or_default();
        self.state.given.lock().push(String::from_utf8_lossy(&payload).into_owned());
        self.state.unanswered.lock().push_back(confirmer);
        self.state.changed.notify_waiters();
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
        self.memory.close().await
    }
}

pub(crate) type Publish<'a> = BoxFuture<'a, Result<Receipt>>;

/// Begins a publish: polls its future once.
pub(crate) fn begin<'a>(broker: &'a Traced<Manual>, payload: &str) -> Publish<'a> {
    let mut publish = broker.publish("orders", Message::new(payload.to_owned()));
    assert!(poll(&mut publish).is_pending(), "the driver has not answered");
    publish
}

/// Polls a future whose waker does nothing.
pub(crate) fn poll<T>(future: &mut BoxFuture<'_, T>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}
