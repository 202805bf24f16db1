//! The minimal driver that the guide begins with.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};
use traced_broker::capability::{Attempts, Confirm, Redelivery};
use traced_broker::driver::{
    AttributeValue, Confirmation, Confirmer, DeliveryHandle, Destination, Disposition, Driver, Identity, Inbound,
    Outbound, Source, Tenure,
};
use traced_broker::{
    Capabilities, Error, ErrorKind, Message, Receipt, Result, Start, Subscription, Topic, Traced, TracedBroker,
};

/// A broker in this process: each subscriber gets the messages that are published while it is
/// there.
#[derive(Debug)]
struct Loopback {
    identity: Identity,
    capabilities: Capabilities,
    topics: Mutex<Option<HashMap<Topic, broadcast::Sender<Outbound>>>>, // `None` once closed
}

impl Loopback {
    fn new() -> Self {
        let mut can = Capabilities::new();
        can.confirm = Confirm::Never;
        can.groups = false;
        can.at_least_once = false;
        can.backlog = false;
        can.retry = Redelivery::Unsupported;
        can.attempts = Attempts::Never;
        can.timestamp = None;
        Self { identity: Identity::new("loopback"), capabilities: can, topics: Mutex::new(Some(HashMap::new())) }
    }

    fn topic(&self, topic: &Topic) -> Result<broadcast::Sender<Outbound>> {
        let mut topics = self.topics.lock();
        let topics = topics.as_mut().ok_or_else(|| Error::new(ErrorKind::Closed, "the broker is closed"))?;
        Ok(topics.entry(topic.clone()).or_insert_with(|| broadcast::channel(1024).0).clone())
    }
}

#[async_trait]
impl Driver for Loopback {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.topic(topic).map(|_| Destination::new())
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        let sent = self.topic(topic).map(|topic| topic.send(message).is_ok());
        confirmer.confirm(sent.map(|_| Receipt::unconfirmed())); // `false`, without a subscriber, is no error
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let messages = self.topic(&Topic::new(subscription.topic())?)?.subscribe();
        let deliveries = stream::unfold(messages, |mut messages| async move {
            let delivery = match messages.recv().await {
                Ok(message) => Ok(inbound(message)),
                Err(RecvError::Lagged(n)) => Err(Error::new(ErrorKind::Busy, format!("{n} messages were missed"))),
                Err(RecvError::Closed) => return None,
            };
            Some((delivery, messages))
        });
        Ok(Source::new(Destination::new(), deliveries))
    }

    async fn reposition(&self, _: &Subscription, _: Start) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "this broker keeps no positions"))
    }

    async fn ping(&self) -> Result<()> {
        self.topics.lock().as_ref().map(|_| ()).ok_or_else(|| Error::new(ErrorKind::Closed, "the broker is closed"))
    }

    async fn close(&self) -> Result<()> {
        *self.topics.lock() = None; // ends the streams
        Ok(())
    }
}

fn inbound(Outbound { payload, key, id, headers, .. }: Outbound) -> Inbound {
    let handle = Box::new(NoSettlement);
    let (unreadable_headers, attempt, deliveries) = (0, 1, None);
    let (timestamp, partition, offset, native) = (None, None, None, None);
    Inbound {
        payload,
        key,
        id,
        headers,
        unreadable_headers,
        attempt,
        deliveries,
        lost_trials: None,
        timestamp,
        partition,
        offset,
        native,
        tenure: Tenure::new(),
        handle,
    }
}

/// The handle of a message that its broker has forgotten.
#[derive(Debug)]
struct NoSettlement;

impl DeliveryHandle for NoSettlement {
    fn settle(self: Box<Self>, _: Disposition) -> Confirmation<()> {
        Confirmation::ready(Ok(()))
    }

    fn attributes(&self, _: &mut dyn FnMut(&'static str, AttributeValue)) {}
}

#[tokio::test]
async fn it_is_a_broker() {
    let broker = Traced::new(Loopback::new());
    let mut deliveries = broker.subscribe(Subscription::new("orders").at_most_once()).await.unwrap();
    broker.publish("orders", Message::new("one pair of shoes")).await.unwrap();

    let delivery = deliveries.next().await.unwrap().unwrap();
    assert_eq!(delivery.message().payload(), "one pair of shoes");

    broker.close().await.unwrap();
    assert!(deliveries.next().await.is_none());
}
