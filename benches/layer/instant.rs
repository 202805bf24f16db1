//! A driver that confirms at once and always has a message.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use traced_broker::driver::{
    AttributeValue, Confirmation, Confirmer, DeliveryHandle, Destination, Disposition, Driver, Identity, Inbound,
    Outbound, Source, Tenure,
};
use traced_broker::{Capabilities, Headers, Receipt, Result, Start, Subscription, Topic};

pub(crate) const PAYLOAD: Bytes = Bytes::from_static(&[b'x'; 1024]);

#[derive(Debug)]
pub(crate) struct Instant {
    identity: Identity,
    capabilities: Capabilities,
}

impl Instant {
    pub(crate) fn new() -> Self {
        let identity = Identity::new("instant").with_server("localhost", 1);
        Self { identity, capabilities: Capabilities::new() }
    }

    pub(crate) fn take(&self, message: Outbound) -> Result<Receipt> {
        divan::black_box((self, message));
        Ok(Receipt::confirmed())
    }

    pub(crate) fn source() -> Source {
        let mut headers = Headers::new();
        headers.append("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let tenure = Tenure::new();
        let messages = stream::repeat_with(move || {
            Ok(Inbound {
                payload: Some(PAYLOAD),
                key: None,
                id: None,
                headers: headers.clone(),
                unreadable_headers: 0,
                attempt: 1,
                deliveries: None,
                lost_trials: None,
                timestamp: None,
                partition: None,
                offset: None,
                native: None,
                tenure: tenure.clone(),
                handle: Box::new(Handle),
            })
        });
        Source::new(Destination::new(), messages)
    }
}

#[async_trait]
impl Driver for Instant {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, _: &Topic) -> Result<Destination> {
        Ok(Destination::new())
    }

    fn publish(&self, _: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        confirmer.confirm(self.take(message));
    }

    async fn subscribe(&self, _: &Subscription) -> Result<Source> {
        Ok(Self::source())
    }

    async fn reposition(&self, _: &Subscription, _: Start) -> Result<()> {
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Handle;

impl DeliveryHandle for Handle {
    fn settle(self: Box<Self>, _: Disposition) -> Confirmation<()> {
        Confirmation::ready(Ok(()))
    }

    fn attributes(&self, _: &mut dyn FnMut(&'static str, AttributeValue)) {}
}
