//! A driver that refuses some messages and passes everything else on. Brokers differ in what they
//! refuse, but the required consequences are the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use crate::driver::capability::Capabilities;
use crate::driver::{Confirmer, Destination, Driver, Identity, Outbound, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Receipt, Start, Subscription, Topic};

/// A connection that wraps another.
#[derive(Debug)]
pub(super) struct Refusing {
    driver: Arc<dyn Driver>,
    topic: Option<String>,
    payload: Option<&'static str>,
    /// The topic that is out of reach, and for how many more publishes.
    away: Option<(String, AtomicUsize)>,
}

impl Refusing {
    /// Wraps a driver so that it refuses messages with this payload.
    pub(super) fn payload(driver: Arc<dyn Driver>, payload: &'static str) -> Arc<dyn Driver> {
        Arc::new(Self { driver, topic: None, payload: Some(payload), away: None })
    }

    /// Wraps a driver so that it knows no topic of this name, like a connection that may not create
    /// it.
    pub(super) fn topic(driver: Arc<dyn Driver>, topic: String) -> Arc<dyn Driver> {
        Arc::new(Self { driver, topic: Some(topic), payload: None, away: None })
    }

    /// Wraps a driver so that the topic is out of reach for this number of publishes.
    pub(super) fn at_first(driver: Arc<dyn Driver>, topic: String, publishes: usize) -> Arc<dyn Driver> {
        Arc::new(Self { driver, topic: None, payload: None, away: Some((topic, AtomicUsize::new(publishes))) })
    }

    fn is_away(&self, topic: &Topic) -> bool {
        let Some((_, left)) = self.away.as_ref().filter(|(away, _)| away == topic.as_str()) else { return false };
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

#[async_trait]
impl Driver for Refusing {
    fn identity(&self) -> &Identity {
        self.driver.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.driver.capabilities()
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        if self.topic.as_deref() == Some(topic) {
            return Err(Error::new(ErrorKind::NotFound, "the topic does not exist"));
        }
        self.driver.declare(topic).await
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        if self.payload.is_some() && self.payload.map(str::as_bytes) == message.payload.as_deref() {
            return confirmer.confirm(Err(Error::new(ErrorKind::Rejected, "the broker refuses the message")));
        }
        if self.is_away(topic) {
            return confirmer.confirm(Err(Error::new(ErrorKind::Unavailable, "the topic is out of reach")));
        }
        self.driver.publish(topic, message, confirmer);
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        self.driver.subscribe(subscription).await
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        self.driver.reposition(subscription, start).await
    }

    async fn ping(&self) -> Result<()> {
        self.driver.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.driver.close().await
    }
}
