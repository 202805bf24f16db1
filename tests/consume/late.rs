//! A driver that settles late.

use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::poll_fn;
use parking_lot::Mutex;
use traced_broker::adapters::memory::Memory;
use traced_broker::driver::{
    AttributeValue, Confirmation, Confirmer, DeliveryHandle, Destination, Disposition, Driver, Identity, Outbound,
    Source,
};
use traced_broker::{Capabilities, Receipt, Result, Start, Subscription, Topic};

/// Time from a request to settle to its end.
const LATE: Duration = Duration::from_millis(100);

/// The payloads of the messages that are being settled.
pub(crate) type Settling = Arc<Mutex<Vec<Vec<u8>>>>;

/// The embedded broker, which settles late.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) inner: Memory,
    pub(crate) settling: Settling,
}

#[derive(Debug)]
struct LateHandle {
    inner: Box<dyn DeliveryHandle>,
    payload: Vec<u8>,
    settling: Settling,
}

impl DeliveryHandle for LateHandle {
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()> {
        let Self { inner, payload, settling } = *self;
        settling.lock().push(payload.clone());
        Confirmation::running(async move {
            tokio::time::sleep(LATE).await;
            let settled = inner.settle(disposition).await;
            settling.lock().retain(|other| *other != payload);
            settled
        })
    }

    fn begin_trial(&self) -> Confirmation<()> {
        self.inner.begin_trial()
    }

    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
        self.inner.attributes(visit);
    }
}

#[async_trait]
impl Driver for Late {
    fn identity(&self) -> &Identity {
        self.inner.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.inner.declare(topic).await
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        self.inner.publish(topic, message, confirmer);
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let mut source = self.inner.subscribe(subscription).await?;
        let (destination, settling) = (source.destination.clone(), Arc::clone(&self.settling));
        let stream = poll_fn(move |cx| {
            let item = ready!(source.poll_next(cx));
            Poll::Ready(item.map(|item| {
                item.map(|mut inbound| {
                    let payload = inbound.payload.as_deref().unwrap_or_default().to_vec();
                    let settling = Arc::clone(&settling);
                    inbound.handle = Box::new(LateHandle { inner: inbound.handle, payload, settling });
                    inbound
                })
            }))
        });
        Ok(Source::new(destination, stream))
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
