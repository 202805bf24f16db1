//! What every broker can do by means of what [`TracedBroker`] says it can.

use async_trait::async_trait;
use futures_core::Stream;
use futures_util::StreamExt as _;

use crate::address::Subscription;
use crate::bridge::Bridge;
use crate::broker::TracedBroker;
use crate::consume::{Consume, ConsumeBatch};
use crate::error::Result;
use crate::health::{self, Health};
use crate::message::{Message, Receipt};
use crate::received::Received;
use crate::redrive::Redrive;
use crate::request::{self, Requester};

/// Calls that are the same for every broker, over [`TracedBroker`]; also on `Arc<dyn TracedBroker>`.
#[async_trait]
pub trait TracedBrokerExt: TracedBroker {
    /// Runs `handler` on the messages of a subscription; see [`consume`](crate::consume).
    ///
    /// What is returned does nothing until it is [run](Consume::run).
    fn consume<H>(&self, subscription: Subscription, handler: H) -> Consume<'_, Self, H> {
        Consume::new(self, subscription, handler)
    }

    /// Runs `handler` on the messages of a subscription by the batch.
    ///
    /// What is returned does nothing until it is [run](ConsumeBatch::run).
    fn consume_batch<H>(&self, subscription: Subscription, handler: H) -> ConsumeBatch<'_, Self, H> {
        ConsumeBatch::new(self, subscription, handler)
    }

    /// Publishes a stream of messages in order, up to `in_flight` (at least 1) at a time, and returns a stream of their results, in the same order.
    ///
    /// As with [`publish`](TracedBroker::publish), each message has a span and a result of its own: a failure does not stop the others.
    /// Nothing is published unless the results are polled.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::{StreamExt, stream};
    /// use traced_broker::{Message, TracedBrokerExt, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let messages = stream::iter(0..1000).map(|number| Message::new(number.to_string()));
    /// let failures = broker.publish_all("numbers", messages, 64).filter(|result| std::future::ready(result.is_err())).count().await;
    /// assert_eq!(failures, 0);
    /// # Ok(()) }
    /// ```
    fn publish_all<'a, S>(
        &'a self,
        topic: &'a str,
        messages: S,
        in_flight: usize,
    ) -> impl Stream<Item = Result<Receipt>> + 'a
    where
        S: Stream<Item = Message> + 'a,
    {
        messages.map(move |message| self.publish(topic, message)).buffered(in_flight.max(1))
    }

    /// Starts to await replies on `reply_topic`, so that requests can be sent; see [`request`](crate::request).
    ///
    /// # Errors
    /// What [`subscribe`](TracedBroker::subscribe) returns.
    async fn requester(&self, reply_topic: &str) -> Result<Requester<Self>>
    where
        Self: Clone + Sized + 'static,
    {
        Requester::start(self.clone(), reply_topic).await
    }

    /// Replies to a request, within the context that is current: in a handler, that of its process span.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`](crate::ErrorKind::InvalidMessage) when the message is no request, and what
    /// [`publish`](TracedBroker::publish) returns.
    async fn reply(&self, request: &Received, reply: Message) -> Result<Receipt> {
        let (topic, reply) = request::address_reply(request, reply)?;
        self.publish(&topic, reply).await
    }

    /// Sends the messages of a dead-letter topic back to where they came from.
    ///
    /// What is returned does nothing until it is [run](Redrive::run).
    fn redrive(&self, dead_letter_topic: &str) -> Redrive<'_, Self> {
        Redrive::new(self, dead_letter_topic)
    }

    /// Copies the messages of a subscription to a topic of another broker, with their traces; see [`bridge`](crate::bridge).
    ///
    /// What is returned does nothing until it is [run](Bridge::run).
    fn bridge<'a, B>(&'a self, subscription: Subscription, to: &'a B, topic: impl Into<String>) -> Bridge<'a, Self, B>
    where
        B: TracedBroker + ?Sized,
    {
        Bridge::new(self, subscription, to, topic)
    }

    /// Whether the broker can be worked with; answers within 5 s.
    async fn health(&self) -> Health {
        health::check(self).await
    }
}

impl<B: TracedBroker + ?Sized> TracedBrokerExt for B {}
