//! The trait that applications program against, its implementation over any driver, and the path of
//! a message through both: publisher, deliveries, settlement and dead letters.

mod attempt;
mod burial;
mod channels;
mod consumer;
pub(crate) mod copies;
mod dead_letter;
mod decision;
mod deliveries;
mod delivery;
mod discarded;
mod flights;
mod held;
mod publisher;
mod replay;
mod settlement;
mod settling;
mod traced;
mod trial;
mod verdicts;
mod waiting;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::driver::{Capabilities, Driver};
use crate::error::Result;
use crate::message::{Message, Receipt, Start, Subscription};

pub(crate) use attempt::{Attempt, contained};
pub(crate) use decision::Decision;
pub use deliveries::Deliveries;
pub(crate) use delivery::Concluded;
pub use delivery::Delivery;
pub(crate) use held::due_after;
pub use settlement::{Processed, Settlement};
pub use traced::Traced;
pub(crate) use verdicts::Remembered;

/// A message broker whose traces do not break: the trait that applications program against.
///
/// It is object-safe: `Arc<dyn TracedBroker>` works. [`connect`](crate::connect()) returns a
/// [`Broker`], which implements it over the broker that the URL names.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::sync::Arc;
/// use traced_broker::{Message, TracedBroker, connect};
///
/// let broker: Arc<dyn TracedBroker> = Arc::new(connect("memory://").await?);
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
/// # Ok(()) }
/// ```
///
/// # Context
/// A message carries the context [set on it](Message::context). Without one, it carries the
/// OpenTelemetry context that is current where `publish` is *called*; or the one where its future
/// is first polled, if that is in the same trace or no span is active at the call. With the cargo
/// feature `tracing`, the current context is that of the current `tracing` span. A consumer's
/// process span is by default a child of the message's context and linked to it; see
/// [`propagation`](crate::propagation).
///
/// # Order
/// Messages reach a topic in the order in which the futures of their publishes are first polled,
/// however many are in flight.
///
/// # Outcome
/// A publish is confirmed, or certainly not sent, or unknown. `Ok` means confirmed, with [one
/// exception](Receipt::outcome). [`Error::publish_outcome`](crate::Error::publish_outcome) tells
/// whether a failed publish was certainly not sent or may have been. A publish that is dropped
/// before it ends may have been sent. A failed publish is not repeated by this library.
///
/// # Bounds
/// Publishing waits while the maximum number of publishes is in flight: 1,024 per connection,
/// unless the option `max_in_flight` of the URL sets another (Kafka, RabbitMQ, memory). Each
/// subscription has at most [`prefetch`](Subscription::prefetch) unsettled deliveries.
///
/// # Reconnection
/// A lost connection is restored with back-off until [`close`](Self::close), and subscriptions
/// continue. A publish meanwhile waits or fails, as each [adapter](crate::adapters) documents; once
/// bytes may have left, its outcome is unknown. Settling a delivery of the lost connection fails
/// with [`ErrorKind::SettlementLost`](crate::ErrorKind::SettlementLost) and settles no other
/// message.
///
/// # Untrusted peers
/// Malformed, duplicate or oversized trace headers never crash a consumer, lose a message, or leak
/// into the next one. A [`TrustBoundary`](crate::TrustBoundary) on a
/// [subscription](Subscription::trust_boundary), a [message](Message::trust_boundary) or a
/// [handle](Traced::with_trust_boundary) restricts the context that crosses it.
#[async_trait]
pub trait TracedBroker: fmt::Debug + Send + Sync {
    /// Returns the messaging system: `kafka`, `rabbitmq`, `nats`, `redis` or `memory`.
    fn system(&self) -> &'static str;

    /// Returns the capabilities of this broker.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::{TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// assert!(broker.capabilities().delayed_publish);
    /// # Ok(()) }
    /// ```
    fn capabilities(&self) -> &Capabilities;

    /// Publishes a message and waits for the broker's confirm.
    ///
    /// Creates a `send {topic}` span of kind PRODUCER, a child of the message's context, that lasts
    /// until the confirm; the message carries the span's context. Trace headers that the message
    /// already holds are replaced, because it is a new message. To pass a received message on with
    /// its own context, use [`forward`](Self::forward).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::{ErrorKind, Message, PublishOutcome, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let receipt = broker.publish("orders", Message::new("one pair of shoes")).await?;
    /// assert!(receipt.confirmed);
    ///
    /// let error = broker.publish("orders/eu", Message::new("one hat")).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig); // No topic has a slash in its name.
    /// assert_eq!(error.publish_outcome(), PublishOutcome::NotSent);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for an invalid name;
    /// [`ErrorKind::InvalidMessage`](crate::ErrorKind::InvalidMessage),
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) or
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a message that this broker
    /// cannot carry; [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a topic that is
    /// missing and may not be created; [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) if the
    /// broker refuses; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) or
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if it does not answer;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`close`](Self::close).
    fn publish<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<Receipt>>;

    /// Publishes messages in order, pipelined, and returns one result for each, in the same order.
    ///
    /// Each message gets a `create {topic}` span and with it its own creation context. `send
    /// {topic}` spans of kind CLIENT link these, one span per 128 messages, because OpenTelemetry
    /// keeps no more links per span.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::{Message, Result, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let rows = || vec![Message::new("1"), Message::new("2")];
    /// let results = broker.publish_batch("rows", rows()).await;
    /// assert_eq!(results.into_iter().collect::<Result<Vec<_>>>()?.len(), 2);
    ///
    /// let results = broker.publish_batch("no such/topic", rows()).await;
    /// assert!(results.len() == 2 && results.iter().all(|result| result.is_err()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// For each message, the errors of [`publish`](Self::publish).
    fn publish_batch<'a>(&'a self, topic: &'a str, messages: Vec<Message>) -> BoxFuture<'a, Vec<Result<Receipt>>>;

    /// Passes on a message with the creation context that it has. The `send {topic}` span is of
    /// kind CLIENT and links this context.
    ///
    /// A message without a valid context is published as a new one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::{Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let mut orders = broker.subscribe(Subscription::new("orders").group("router")).await?;
    /// let mut shoes = broker.subscribe(Subscription::new("orders.shoes").group("workers")).await?;
    /// # let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// # let order = Message::new("one pair of shoes").header("traceparent", traceparent);
    /// # broker.forward("orders", order).await?;
    ///
    /// let order = orders.next().await.expect("the broker is open")?;
    /// broker.forward("orders.shoes", Message::from(order.message())).await?;
    ///
    /// let passed_on = shoes.next().await.expect("the broker is open")?;
    /// assert!(order.message().headers().get("traceparent").is_some());
    /// assert_eq!(
    ///     passed_on.message().headers().get("traceparent"),
    ///     order.message().headers().get("traceparent"),
    /// );
    /// # passed_on.ack().await?;
    /// order.ack().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of [`publish`](Self::publish).
    fn forward<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<Receipt>>;

    /// Starts a subscription and returns its deliveries.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::{ErrorKind, Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let mut deliveries = broker.subscribe(Subscription::new("orders").group("workers")).await?;
    /// broker.publish("orders", Message::new("one pair of shoes")).await?;
    /// let delivery = deliveries.next().await.expect("the broker is open")?;
    /// assert_eq!(delivery.message().payload(), "one pair of shoes");
    /// delivery.ack().await?;
    ///
    /// let error = broker.subscribe(Subscription::new("orders/eu")).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    /// // At most once, a message cannot be rejected.
    /// let reader = Subscription::new("orders").at_most_once().dead_letter("orders.dead");
    /// assert_eq!(broker.subscribe(reader).await.unwrap_err().kind(), ErrorKind::Unsupported);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if the subscription is not
    /// valid, [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if it asks for a feature
    /// that this broker does not have, [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for
    /// missing topology that may not be created, or an error of the connection.
    async fn subscribe(&self, subscription: Subscription) -> Result<Deliveries>;

    /// Moves the position of the subscription's group: its members get the messages from `start`
    /// on, again or for the first time.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::{ErrorKind, Message, Start, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// broker.publish("orders", Message::new("one pair of shoes")).await?;
    /// let workers = Subscription::new("orders").group("workers");
    /// let mut deliveries = broker.subscribe(workers.clone()).await?;
    /// deliveries.next().await.expect("the broker is open")?.ack().await?;
    ///
    /// broker.reposition(&workers, Start::Earliest).await?;
    /// let again = deliveries.next().await.expect("the broker is open")?;
    /// assert_eq!(again.message().payload(), "one pair of shoes");
    /// again.ack().await?;
    ///
    /// let reader = Subscription::new("orders"); // Only a group has a position at the broker.
    /// let error = broker.reposition(&reader, Start::Earliest).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a subscription without a
    /// group, [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the broker cannot move
    /// groups, [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if the group must have no
    /// members and has some, [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a topic that
    /// is missing, or an error of the connection.
    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()>;

    /// Makes a round trip to the broker.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::{ErrorKind, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// broker.ping().await?;
    /// broker.close().await?;
    /// assert_eq!(broker.ping().await.unwrap_err().kind(), ErrorKind::Closed);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) or
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if the broker does not answer,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`close`](Self::close).
    async fn ping(&self) -> Result<()>;

    /// Stops publishing, waits for the confirms under way, sends acknowledgements to the broker,
    /// and disconnects, all in at most 10 seconds ([`Traced::close_within`] takes another limit).
    ///
    /// Streams of deliveries end. A second call is a no-op. Publishes that come after the call fail
    /// at once; what is unconfirmed at the limit fails too, as not sent or unknown.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::{ErrorKind, Message, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// broker.close().await?;
    /// broker.close().await?; // a no-op
    ///
    /// let error = broker.publish("orders", Message::new("too late")).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Closed);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// An error if acknowledgements or messages could not be brought to the broker; it is closed
    /// all the same.
    async fn close(&self) -> Result<()>;
}

/// A broker chosen at run time by URL; the type that [`connect`](crate::connect()) returns.
pub type Broker = Traced<Arc<dyn Driver>>;

/// The same broker, shared.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: TracedBroker + ?Sized> TracedBroker for Arc<B> {
    fn system(&self) -> &'static str {
        (**self).system()
    }

    fn capabilities(&self) -> &Capabilities {
        (**self).capabilities()
    }

    fn publish<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<Receipt>> {
        (**self).publish(topic, message)
    }

    fn publish_batch<'a>(&'a self, topic: &'a str, messages: Vec<Message>) -> BoxFuture<'a, Vec<Result<Receipt>>> {
        (**self).publish_batch(topic, messages)
    }

    fn forward<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<Receipt>> {
        (**self).forward(topic, message)
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Deliveries> {
        (**self).subscribe(subscription).await
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        (**self).reposition(subscription, start).await
    }

    async fn ping(&self) -> Result<()> {
        (**self).ping().await
    }

    async fn close(&self) -> Result<()> {
        (**self).close().await
    }
}
