//! A driver that counts the publishes that it has not answered, and records the bridge's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use traced_broker::driver::{Confirmation, Confirmer, Destination, Driver, Identity, Outbound, Source};
use traced_broker::{Capabilities, Receipt, Result, Start, Subscription, Topic};

use crate::ledger::{Event, Ledger};
use crate::services::ARCHIVE;

/// A driver whose bound of unanswered publishes is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    inner: Arc<dyn Driver>,
    ledger: Ledger,
    unanswered: Arc<AtomicUsize>,
}

impl Watched {
    pub(crate) fn over(inner: Arc<dyn Driver>, ledger: Ledger) -> Arc<dyn Driver> {
        Arc::new(Self { inner, ledger, unanswered: Arc::default() })
    }
}

#[async_trait]
impl Driver for Watched {
    fn identity(&self) -> &Identity {
        self.inner.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        let declared = self.inner.declare(topic).await;
        if topic.as_str() == ARCHIVE && declared.is_err() {
            self.ledger.record(Event::NoArchive);
        }
        declared
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        let (inner, confirmation) = Confirmation::pending();
        let (most, unanswered) = (self.identity().max_in_flight, Arc::clone(&self.unanswered));
        let now = unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        if now > most {
            self.ledger.found(format!("the driver has {now} unanswered publishes, and room for {most}"));
        }
        if topic.as_str() == ARCHIVE {
            let order = message.id.as_deref().and_then(|id| id.parse().ok());
            self.ledger.record(Event::Copied { order: order.unwrap_or(usize::MAX) });
        }
        self.inner.publish(topic, message, inner);
        tokio::spawn(async move {
            let answer = confirmation.await;
            unanswered.fetch_sub(1, Ordering::Relaxed);
            confirmer.confirm(answer);
        });
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        self.inner.subscribe(subscription).await
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        self.inner.reposition(subscription, start).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
