//! A driver over another that delays answers and records their times, so that a case can tell
//! whether a span waited for them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::driver::capability::Capabilities;
use crate::driver::{
    AttributeValue, Confirmation, Confirmer, DeliveryHandle, Destination, Disposition, Driver, DriverExt, Identity,
    Inbound, Outbound, Source,
};
use crate::error::Result;
use crate::message::{Receipt, Start, Subscription, Topic};

/// A connection that wraps another.
#[derive(Debug)]
pub(super) struct Watched {
    driver: Arc<dyn Driver>,
    watch: Arc<Watch>,
}

/// The changes made to answers, and the times at which they were given.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Delay of the answer to a publish or a settlement.
    late: Duration,
    /// Time by which the timestamps of messages are ahead of the broker's clock.
    ahead: Duration,
    confirmed: Mutex<Vec<SystemTime>>,
    settled: Mutex<Vec<SystemTime>>,
}

impl Watch {
    /// Returns the times at which publishes were confirmed or refused.
    pub(super) fn confirmed(&self) -> Vec<SystemTime> {
        self.confirmed.lock().clone()
    }

    /// Returns the times at which settlements were answered.
    pub(super) fn settled(&self) -> Vec<SystemTime> {
        self.settled.lock().clone()
    }
}

impl Watched {
    /// Wraps a driver so that its answers are given later by `late`.
    pub(super) fn late(driver: Arc<dyn Driver>, late: Duration) -> (Arc<dyn Driver>, Arc<Watch>) {
        Self::over(driver, Watch { late, ..Watch::default() })
    }

    /// Wraps a driver so that its timestamps are ahead by `ahead`.
    pub(super) fn ahead(driver: Arc<dyn Driver>, ahead: Duration) -> Arc<dyn Driver> {
        Self::over(driver, Watch { ahead, ..Watch::default() }).0
    }

    fn over(driver: Arc<dyn Driver>, watch: Watch) -> (Arc<dyn Driver>, Arc<Watch>) {
        let watch = Arc::new(watch);
        (Arc::new(Self { driver, watch: Arc::clone(&watch) }), watch)
    }
}

/// Delays the answer, and records the time at which it is given.
fn later<T: Send + Unpin + 'static>(
    answer: Confirmation<T>,
    watch: &Arc<Watch>,
    given: fn(&Watch) -> &Mutex<Vec<SystemTime>>,
) -> Confirmation<T> {
    let watch = Arc::clone(watch);
    Confirmation::running(async move {
        let answer = answer.await;
        tokio::time::sleep(watch.late).await;
        given(&watch).lock().push(SystemTime::now());
        answer
    })
}

#[async_trait]
impl Driver for Watched {
    fn identity(&self) -> &Identity {
        self.driver.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.driver.capabilities()
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.driver.declare(topic).await
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        later(self.driver.enqueue(topic, message), &self.watch, |watch| &watch.confirmed).pass_to(confirmer);
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let watch = Arc::clone(&self.watch);
        let source = self.driver.subscribe(subscription).await?;
        Ok(source.map(move |inbound| watch_over(inbound, &watch)))
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

fn watch_over(mut inbound: Inbound, watch: &Arc<Watch>) -> Inbound {
    if let Some(timestamp) = &mut inbound.timestamp {
        timestamp.time += watch.ahead;
    }
    inbound.handle = Box::new(WatchedHandle { handle: inbound.handle, watch: Arc::clone(watch) });
    inbound
}

struct WatchedHandle {
    handle: Box<dyn DeliveryHandle>,
    watch: Arc<Watch>,
}

#[deny(clippy::missing_trait_methods)]
impl DeliveryHandle for WatchedHandle {
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        later(self.handle.settle(disposition), &self.watch, |watch| &watch.settled)
    }

    fn failed(&self, attempts: u32) {
        self.handle.failed(attempts);
    }

    fn begin_trial(&self) -> Confirmation<()> {
        self.handle.begin_trial()
    }

    fn set_aside(&self) -> bool {
        self.handle.set_aside()
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        self.handle.attributes(visit);
    }
}

impl fmt::Debug for WatchedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WatchedHandle").field(&self.handle).finish()
    }
}
