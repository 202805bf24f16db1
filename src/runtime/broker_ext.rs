//! Operations that are the same on every broker, on top of [`TracedBroker`].

use async_trait::async_trait;
use futures_core::Stream;
use futures_util::StreamExt as _;

use crate::broker::TracedBroker;
use crate::error::Result;
use crate::message::{Message, Receipt, Received, Subscription};
use crate::runtime::bridge::Bridge;
use crate::runtime::consume::{Consume, ConsumeBatch};
use crate::runtime::health::{self, Health};
use crate::runtime::redrive::Redrive;
use crate::runtime::request::{self, Requester};

/// The methods that are the same for every broker, on top of [`TracedBroker`]; available on
/// `Arc<dyn TracedBroker>` too.
#[async_trait]
pub trait TracedBrokerExt: TracedBroker {
    /// Runs `handler` on the messages of a subscription; see [`consume`](crate::runtime::consume).
    ///
    /// The returned [`Consume`] does nothing until it is [run](Consume::run).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use std::time::Duration;
    /// use traced_broker::{HandlerError, Message, Received, Subscription};
    /// use traced_broker::{TracedBroker, TracedBrokerExt, connect};
    ///
    /// async fn ship(message: Received) -> Result<(), HandlerError> {
    ///     println!("shipping {:?}", message.payload());
    ///     Ok(())
    /// }
    ///
    /// let broker = connect("memory://").await?;
    /// broker.publish("orders", Message::new("one pair of shoes")).await?;
    /// let shutdown = tokio::time::sleep(Duration::from_millis(50));
    /// let workers = Subscription::new("orders").group("workers");
    /// let report = broker.consume(workers, ship).run_until(shutdown).await?;
    /// assert_eq!(report.handled, 1);
    /// # Ok(()) }
    /// ```
    fn consume<H>(&self, subscription: Subscription, handler: H) -> Consume<'_, Self, H> {
        Consume::new(self, subscription, handler)
    }

    /// Runs `handler` on batches of the messages of a subscription.
    ///
    /// The returned [`ConsumeBatch`] does nothing until it is [run](ConsumeBatch::run).
    fn consume_batch<H>(&self, subscription: Subscription, handler: H) -> ConsumeBatch<'_, Self, H> {
        ConsumeBatch::new(self, subscription, handler)
    }

    /// Publishes a stream of messages in order, up to `in_flight` (at least 1) at a time, and
    /// returns a stream of their results, in the same order.
    ///
    /// As with [`publish`](TracedBroker::publish), each message has its own span and its own
    /// result: a failure does not stop the others. Messages are published only while the results
    /// are polled.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::{StreamExt, stream};
    /// use traced_broker::{Message, TracedBrokerExt, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let messages = stream::iter(0..1000).map(|number| Message::new(number.to_string()));
    /// let results: Vec<_> = broker.publish_all("numbers", messages, 64).collect().await;
    /// assert!(results.len() == 1000 && results.iter().all(|result| result.is_ok()));
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

    /// Creates a [`Requester`], which sends requests and awaits their replies on `reply_topic`; see
    /// [`request`](crate::runtime::request).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::{ErrorKind, TracedBrokerExt, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let requester = broker.requester("prices.replies").await?;
    /// assert_eq!(requester.reply_topic().as_str(), "prices.replies");
    ///
    /// let error = broker.requester("prices/replies").await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of [`subscribe`](TracedBroker::subscribe).
    async fn requester(&self, reply_topic: &str) -> Result<Requester<Self>>
    where
        Self: Clone + Sized + 'static,
    {
        Requester::start(self.clone(), reply_topic).await
    }

    /// Replies to a request, within the current context; in a handler, that is its process span.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::{ErrorKind, Message, Subscription};
    /// use traced_broker::{TracedBroker, TracedBrokerExt, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let mut prices = broker.subscribe(Subscription::new("prices").group("price-desk")).await?;
    /// broker.publish("prices", Message::new("A-1")).await?; // asks for no reply
    ///
    /// let delivery = prices.next().await.expect("the broker is open")?;
    /// let error = broker.reply(delivery.message(), Message::new("42 EUR")).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidMessage);
    /// delivery.ack().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// The request names the topic of its reply, which must have the word `replies` in its name;
    /// see [`ReplyTopics`](request::ReplyTopics) for other topics.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`](crate::ErrorKind::InvalidMessage) if the message is not a
    /// request, [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) if its reply
    /// topic is not allowed, or an error of [`publish`](TracedBroker::publish).
    async fn reply(&self, request: &Received, reply: Message) -> Result<Receipt> {
        self.reply_within(&request::ReplyTopics::default(), request, reply).await
    }

    /// Replies to a request as [`reply`](Self::reply) does, to the topics that this rule allows.
    ///
    /// # Errors
    /// Those of [`reply`](Self::reply).
    async fn reply_within(
        &self,
        allowed: &request::ReplyTopics,
        request: &Received,
        reply: Message,
    ) -> Result<Receipt> {
        let (topic, reply) = request::address_reply(allowed, request, reply)?;
        self.publish(&topic, reply).await
    }

    /// Sends the messages of a dead-letter topic back to the topics they came from.
    ///
    /// The returned [`Redrive`] does nothing until it is [run](Redrive::run).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use std::time::Duration;
    /// use traced_broker::{TracedBrokerExt, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let redrive = broker.redrive("orders.dead").at_most(100).idle(Duration::from_millis(10));
    /// assert_eq!(redrive.run().await?.sent_back, 0); // There are no dead letters.
    /// # Ok(()) }
    /// ```
    fn redrive(&self, dead_letter_topic: &str) -> Redrive<'_, Self> {
        Redrive::new(self, dead_letter_topic)
    }

    /// Copies the messages of a subscription to a topic of another broker, with their traces; see
    /// [`bridge`](crate::runtime::bridge).
    ///
    /// The returned [`Bridge`] does nothing until it is [run](Bridge::run).
    fn bridge<'a, B>(&'a self, subscription: Subscription, to: &'a B, topic: impl Into<String>) -> Bridge<'a, Self, B>
    where
        B: TracedBroker + ?Sized,
    {
        Bridge::new(self, subscription, to, topic)
    }

    /// Checks the health of the broker with a [`ping`](TracedBroker::ping); answers within 5 s.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::{Health, TracedBroker, TracedBrokerExt, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// assert!(broker.health().await.is_ready());
    ///
    /// broker.close().await?;
    /// assert!(matches!(broker.health().await, Health::Closed));
    /// # Ok(()) }
    /// ```
    async fn health(&self) -> Health {
        health::check(self).await
    }
}

impl<B: TracedBroker + ?Sized> TracedBrokerExt for B {}
