//! The contract between this library and an adapter.
//!
//! A [`Driver`] moves bytes and headers. Everything that must be the same on every broker (spans,
//! propagation, retries, dead letters) is implemented once above it. A driver works with
//! [`Headers`] and is unaware of telemetry, so it cannot lose or break a trace.
//!
//! # Rules for implementors
//! - **Order.** [`Driver::publish`] enqueues before it returns: two consecutive calls reach one
//!   topic (and partition, if keys are equal) in that order.
//! - **Outcome.** A confirmation is `Ok` only if the broker confirmed. An error is [marked
//!   unknown](crate::Error::with_unknown_outcome) as soon as bytes may have been sent.
//! - **No policy.** A driver does not retry, does not dead-letter, and counts only the attempts
//!   that the broker counts.
//! - **Bounds.** The layer above keeps at most [`Identity::max_in_flight`] publishes unconfirmed; a
//!   driver hands out at most [`Subscription::prefetch_limit`] unsettled deliveries per
//!   subscription. No buffer may grow beyond these limits.
//! - **Generations.** A [`DeliveryHandle`] belongs to the connection or assignment it came from.
//!   After that is gone, settling fails with
//!   [`ErrorKind::SettlementLost`](crate::ErrorKind::SettlementLost) and affects no other message.
//! - **Reconnection.** The driver restores a lost connection, with back-off and without a limit of
//!   attempts, until `close`; a [`Source`] continues across it. Unconfirmed publishes of the old
//!   connection fail as unknown.
//! - **Hostile input.** A foreign producer may write anything. Such a message is delivered with the
//!   headers that can be represented; it never causes a panic or a reconnect loop.

mod broker_url;
pub mod capability;
mod confirmation;
mod identity;
mod tenure;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;

use crate::error::Result;
use crate::headers::Headers;
use crate::message::{Receipt, Start, Subscription, Topic};

pub use crate::message::{Timestamp, TimestampSource};
pub use broker_url::{BrokerUrl, Secret, Topology, UrlOptions};
pub use capability::Capabilities;
pub use confirmation::{Confirmation, Confirmer};
pub use identity::{AttributeValue, Destination, Identity};
pub use tenure::Tenure;

/// The trait that an adapter implements; see the [module](self) for the rules.
///
/// ```
/// use async_trait::async_trait;
/// use traced_broker::driver::{Confirmation, Destination, Driver, Identity, Outbound, Source};
/// use traced_broker::{
///     Capabilities, Error, ErrorKind, Message, Receipt, Result, Start, Subscription, Topic,
///     Traced, TracedBroker,
/// };
///
/// /// A broker that accepts every message and keeps none.
/// #[derive(Debug)]
/// struct Discard {
///     identity: Identity,
///     capabilities: Capabilities,
/// }
///
/// #[async_trait]
/// impl Driver for Discard {
///     fn identity(&self) -> &Identity {
///         &self.identity
///     }
///
///     fn capabilities(&self) -> &Capabilities {
///         &self.capabilities
///     }
///
///     async fn declare(&self, _: &Topic) -> Result<Destination> {
///         Ok(Destination::new())
///     }
///
///     fn publish(&self, _: &Topic, _: Outbound) -> Confirmation<Receipt> {
///         Confirmation::ready(Ok(Receipt::confirmed()))
///     }
///
///     async fn subscribe(&self, _: &Subscription) -> Result<Source> {
///         Ok(Source::new(Destination::new(), futures_util::stream::pending()))
///     }
///
///     async fn reposition(&self, _: &Subscription, _: Start) -> Result<()> {
///         Err(Error::new(ErrorKind::Unsupported, "this broker keeps no positions"))
///     }
///
///     async fn ping(&self) -> Result<()> {
///         Ok(())
///     }
///
///     async fn close(&self) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let mut capabilities = Capabilities::new();
/// capabilities.max_payload = Some(16);
/// let broker = Traced::new(Discard { identity: Identity::new("discard"), capabilities });
/// broker.publish("orders", Message::new("shoes")).await?;
///
/// // The layer above checks every call against the capabilities.
/// let error = broker.publish("orders", Message::new([0; 17].to_vec())).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::TooLarge);
/// # Ok(()) }
/// ```
#[async_trait]
pub trait Driver: fmt::Debug + Send + Sync + 'static {
    /// Returns the identity of this driver and its address; constant for the life of the driver.
    fn identity(&self) -> &Identity;

    /// Returns the capabilities of this broker; constant for the life of the driver.
    fn capabilities(&self) -> &Capabilities;

    /// Ensures that messages can be published to `topic`: creates missing topology, or only checks
    /// it, depending on the adapter's option.
    ///
    /// Called once per topic before its first publish, and not again after a reconnection.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if it is missing and may not be created,
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if it exists with different properties,
    /// or an error of the connection.
    async fn declare(&self, topic: &Topic) -> Result<Destination>;

    /// Enqueues one message, in call order and without blocking, and returns the confirmation to
    /// await.
    ///
    /// Dropping the confirmation does not revoke the message.
    fn publish(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt>;

    /// Starts a subscription whose names and bounds are valid.
    ///
    /// An [at-most-once](crate::Guarantee) subscription needs no special treatment on brokers with
    /// acknowledgements: the layer above acknowledges each message as it is handed out.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for an option that this broker
    /// does not support, [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for missing topology
    /// that may not be created, or an error of the connection.
    async fn subscribe(&self, subscription: &Subscription) -> Result<Source>;

    /// Moves the position of the subscription's group, so that its members next receive messages
    /// from `start` on. Called only for groups, and only for positions that the
    /// [capabilities](Capabilities::reposition) allow.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if positions cannot be moved,
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if the group must have no members and
    /// has some, [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a topic that is missing,
    /// or an error of the connection.
    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()>;

    /// Makes a round trip to the broker.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) or
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if the broker does not answer,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after `close`.
    async fn ping(&self) -> Result<()>;

    /// Ends every subscription, sends pending acknowledgements to the broker, and disconnects. A
    /// second call is a no-op.
    ///
    /// At this point the layer above has stopped publishing and has awaited the confirmations.
    ///
    /// # Errors
    /// The failure to send pending acknowledgements; the driver is closed in any case.
    async fn close(&self) -> Result<()>;
}

/// A message on its way to the broker, with complete headers and injected context.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::adapters::memory::Memory;
/// use traced_broker::driver::{Driver, Outbound};
/// use traced_broker::{ErrorKind, Topic};
///
/// let (driver, orders) = (Memory::new(), Topic::new("orders")?);
/// let mut message = Outbound::new("shoes");
/// message.headers.append("tenant", "acme");
/// let receipt = driver.publish(&orders, message).await?;
/// assert!(receipt.confirmed);
///
/// driver.close().await?;
/// let error = driver.publish(&orders, Outbound::new("socks")).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Closed);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Outbound {
    /// The payload; `None` is a tombstone, passed only to drivers whose capabilities include them.
    pub payload: Option<Bytes>,
    /// The key.
    pub key: Option<Bytes>,
    /// The sender's id of the message.
    pub id: Option<String>,
    /// The headers, in the order in which they are to be written.
    pub headers: Headers,
    /// The earliest time of delivery to consumers. Set only for drivers that can
    /// [delay](crate::Capabilities::delayed_publish) messages; these keep the message at the broker
    /// until then.
    pub deliver_at: Option<SystemTime>,
}

impl Outbound {
    /// Creates a message with only a payload.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: Some(payload.into()), ..Self::default() }
    }
}

/// A message on its way to the application.
#[derive(Debug)]
pub struct Inbound {
    /// The payload, which the layer above does not copy; `None` is a tombstone.
    pub payload: Option<Bytes>,
    /// The key.
    pub key: Option<Bytes>,
    /// The message id: the sender's if there is one, otherwise the broker's.
    pub id: Option<String>,
    /// The headers as they are on the wire, in order. Headers that cannot be represented are left
    /// out and counted.
    pub headers: Headers,
    /// The number of headers on the wire that could not be represented.
    pub unreadable_headers: u32,
    /// The number of this attempt to handle the message, from 1: one more than the retries that were
    /// asked for and are counted where the message is kept. Being fetched ahead, given back or
    /// redelivered after a lost connection costs no attempt. Always 1 from a driver that keeps no
    /// count; the layer above counts the attempts of this process itself.
    pub attempt: u32,
    /// The number of times that the broker has handed the message out to this group, with this one,
    /// from 1; `None` from a broker that does not count.
    pub deliveries: Option<u32>,
    /// The time at which the message was stored or sent.
    pub timestamp: Option<Timestamp>,
    /// The partition of the message.
    pub partition: Option<i32>,
    /// The offset or sequence number.
    pub offset: Option<i64>,
    /// The time during which the message can be settled.
    pub tenure: Tenure,
    /// The handle that settles the message.
    pub handle: Box<dyn DeliveryHandle>,
}

/// The instruction to the broker about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disposition {
    /// The message was handled and is not to be redelivered.
    Ack,
    /// No handler has begun on the message. It is to be redelivered at once, in its old place where
    /// the broker allows it, and no attempt is counted. Passed only to drivers that retry natively.
    GiveBack,
    /// The message is to be redelivered after the delay, with one more attempt counted. A delay is passed only to drivers whose
    /// capabilities declare [`Redelivery::NativeDelayed`](capability::Redelivery::NativeDelayed), a
    /// retry only to those that retry natively.
    Retry(Duration),
    /// The message is to be dropped. A dead-letter policy configured at the broker still applies.
    Discard,
}

/// The native side of one delivery: settles it once and provides its span attributes.
///
/// Dropping an unsettled handle settles nothing: the broker redelivers the message, at the latest
/// when the connection ends.
///
/// ```
/// use std::time::Duration;
/// use traced_broker::driver::{
///     AttributeValue, Confirmation, DeliveryHandle, Disposition, Inbound, Tenure,
/// };
/// use traced_broker::{Error, ErrorKind, Headers};
///
/// /// The handle of a message from a connection that was lost.
/// #[derive(Debug)]
/// struct Stale {
///     tag: i64,
/// }
///
/// impl DeliveryHandle for Stale {
///     fn settle(self: Box<Self>, _: Disposition) -> Confirmation<()> {
///         let message = "the connection of the delivery was lost";
///         Confirmation::ready(Err(Error::new(ErrorKind::SettlementLost, message)))
///     }
///
///     fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue)) {
///         visit("messaging.rabbitmq.message.delivery_tag", self.tag.into());
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// let inbound = Inbound {
///     payload: Some("shoes".into()),
///     key: None,
///     id: None,
///     headers: Headers::new(),
///     unreadable_headers: 0,
///     attempt: 1,
///     deliveries: Some(1),
///     timestamp: None,
///     partition: None,
///     offset: Some(7),
///     tenure: Tenure::new(),
///     handle: Box::new(Stale { tag: 1 }),
/// };
/// let error = inbound.handle.settle(Disposition::Retry(Duration::ZERO)).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::SettlementLost); // the broker redelivers the message
/// # Ok(()) }
/// ```
pub trait DeliveryHandle: fmt::Debug + Send + Sync {
    /// Settles the delivery at the broker, in call order and without blocking, and returns the
    /// confirmation to await.
    ///
    /// Fails with [`ErrorKind::SettlementLost`](crate::ErrorKind::SettlementLost) if the connection
    /// or assignment of the delivery is gone. The operation begins at the call: the confirmation is
    /// often dropped unread.
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()>;

    /// Notes that the handler failed on the message for the number of times, counting those of
    /// other processes, and that it is held to be tried again. A driver that can keep this number
    /// where the message is kept hands the message out with it ([`Inbound::attempt`]) after the
    /// process has ended. Called only if the driver [cannot retry](Disposition::Retry) natively;
    /// does not block. By default the number is not kept.
    fn failed(&self, attempts: u32) {
        let _ = attempts;
    }

    /// Calls `visit` with each span attribute specific to this delivery; called only for spans that
    /// are recorded.
    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue));
}

/// A running subscription: its deliveries and its native name. Dropping it ends the subscription
/// and returns undelivered messages to the broker.
///
/// An error item reports a problem and does not end the stream; only `None` ends it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::future::poll_fn;
/// use traced_broker::adapters::memory::Memory;
/// use traced_broker::driver::{Disposition, Driver, Outbound};
/// use traced_broker::{Subscription, Topic};
///
/// let driver = Memory::new();
/// driver.publish(&Topic::new("orders")?, Outbound::new("shoes")).await?;
///
/// let mut source = driver.subscribe(&Subscription::new("orders").group("workers")).await?;
/// let inbound = poll_fn(|cx| source.poll_next(cx)).await.expect("open")?;
/// assert_eq!(inbound.payload.as_deref(), Some(&b"shoes"[..]));
/// inbound.handle.settle(Disposition::Ack).await?;
///
/// driver.close().await?;
/// assert!(poll_fn(|cx| source.poll_next(cx)).await.is_none());
/// # Ok(()) }
/// ```
pub struct Source {
    /// The native name of the subscription.
    pub destination: Destination,
    stream: BoxStream<'static, Result<Inbound>>,
    stop: Option<Box<dyn FnOnce() + Send>>,
}

impl Source {
    /// Creates a source of the messages of `stream`.
    pub fn new(
        destination: Destination,
        stream: impl futures_core::Stream<Item = Result<Inbound>> + Send + 'static,
    ) -> Self {
        Self { destination, stream: stream.boxed(), stop: None }
    }

    /// Sets the action that stops the intake: the driver takes no more messages from the broker, and
    /// gives back those that it has not handed out, without counting an attempt. Deliveries that are
    /// out can be settled as before, until the source is dropped.
    ///
    /// The action is called at most once and must not block. A source without one goes on fetching
    /// ahead, up to its bound, while its consumer drains.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use traced_broker::driver::{Destination, Source};
    ///
    /// let stopped = Arc::new(AtomicBool::new(false));
    /// let flag = Arc::clone(&stopped);
    /// let mut source = Source::new(Destination::new(), futures_util::stream::pending())
    ///     .on_stop(move || flag.store(true, Ordering::Relaxed));
    /// source.stop();
    /// assert!(stopped.load(Ordering::Relaxed));
    /// ```
    #[must_use]
    pub fn on_stop(mut self, stop: impl FnOnce() + Send + 'static) -> Self {
        self.stop = Some(Box::new(stop));
        self
    }

    /// Stops the intake; a second call is a no-op. The source is not polled any more.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }

    /// Polls for the next message, as a stream does.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Inbound>>> {
        self.stream.poll_next_unpin(cx)
    }

    /// Passes each message through `change`, on its way to the layer above.
    #[must_use]
    pub fn map(self, mut change: impl FnMut(Inbound) -> Inbound + Send + 'static) -> Self {
        let stream = self.stream.map(move |item| item.map(&mut change)).boxed();
        Self { stream, ..self }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("destination", &self.destination).finish_non_exhaustive()
    }
}

/// Implements the trait for shared drivers.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<D: Driver + ?Sized> Driver for Arc<D> {
    fn identity(&self) -> &Identity {
        (**self).identity()
    }

    fn capabilities(&self) -> &Capabilities {
        (**self).capabilities()
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        (**self).declare(topic).await
    }

    fn publish(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        (**self).publish(topic, message)
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
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
