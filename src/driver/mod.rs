//! The contract between this library and an adapter.
//!
//! A [`Driver`] moves bytes and headers. Everything that must be the same on every broker (spans,
//! propagation, retries, dead letters) is implemented once above it. A driver works with
//! [`Headers`] and is unaware of telemetry, so it cannot lose or break a trace.
#![doc = ""]
#![doc = include_str!("contract.md")]

mod broker_url;
pub mod capability;
mod confirmation;
mod identity;
mod secret_source;
mod source;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::headers::Headers;
use crate::message::{Message, Receipt, Start, Subscription, Topic};

pub use crate::message::{Native, Tenure, Timestamp, TimestampSource};
pub use broker_url::{BrokerUrl, Secret, Topology, UrlOptions};
pub use capability::Capabilities;
pub(crate) use confirmation::Place;
pub use confirmation::{Confirmation, Confirmer};
pub use identity::{AttributeValue, Destination, Identity};
pub use secret_source::SecretSource;
pub use source::Source;
pub use tls::{Plaintext, Tls, TlsConnector, TlsStream, explain_tls};

/// The trait that an adapter implements; see the [module](self) for the rules.
///
/// ```
/// use async_trait::async_trait;
/// use traced_broker::driver::{Confirmer, Destination, Driver, Identity, Outbound, Source};
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
///     fn publish(&self, _: &Topic, _: Outbound, confirmer: Confirmer<Receipt>) {
///         confirmer.confirm(Ok(Receipt::confirmed()));
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
    /// Called once per topic before its first publish, and not again after a reconnection. A
    /// publish to a topic that was not declared may create it, or fail with
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if it is missing and may not be created,
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if it exists with different properties,
    /// or an error of the connection.
    async fn declare(&self, topic: &Topic) -> Result<Destination>;

    /// Enqueues one message, in call order and without blocking. The answer of the broker goes to
    /// the confirmer, at once or later.
    ///
    /// The message holds its place in flight until then, whether or not its sender still waits. So
    /// every confirmer must be answered or dropped in the end: after
    /// [`Identity::delivery_timeout`] at the latest, or when the connection is lost.
    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>);

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
    /// At this point the layer above has stopped publishing and has awaited the confirmations. It
    /// drops this future when the time for closing is up; the driver must then be closed as well.
    ///
    /// # Errors
    /// The failure to send pending acknowledgements; the driver is closed in any case.
    async fn close(&self) -> Result<()>;
}

/// Calls to a driver that are made without the layer above it, as in the tests of an adapter.
pub trait DriverExt: Driver {
    /// Enqueues one message and returns the confirmation to await. Dropping it does not revoke the
    /// message.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use traced_broker::Topic;
    /// use traced_broker::adapters::memory::Memory;
    /// use traced_broker::driver::{DriverExt, Outbound};
    ///
    /// let (driver, orders) = (Memory::new(), Topic::new("orders")?);
    /// let first = driver.enqueue(&orders, Outbound::new("shoes"));
    /// let second = driver.enqueue(&orders, Outbound::new("socks")); // behind the first
    /// assert_eq!((first.await?.offset, second.await?.offset), (Some(0), Some(1)));
    /// # Ok(()) }
    /// ```
    fn enqueue(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt> {
        let (confirmer, confirmation) = Confirmation::pending();
        self.publish(topic, message, confirmer);
        confirmation
    }
}

impl<D: Driver + ?Sized> DriverExt for D {}

/// A message on its way to the broker, with complete headers and injected context.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::adapters::memory::Memory;
/// use traced_broker::driver::{Driver, DriverExt, Outbound};
/// use traced_broker::{ErrorKind, Topic};
///
/// let (driver, orders) = (Memory::new(), Topic::new("orders")?);
/// let mut message = Outbound::new("shoes");
/// message.headers.append("tenant", "acme");
/// let receipt = driver.enqueue(&orders, message).await?;
/// assert!(receipt.confirmed);
///
/// driver.close().await?;
/// let error = driver.enqueue(&orders, Outbound::new("socks")).await.unwrap_err();
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
    /// The native form of the message of which this is a copy. A driver of the same system writes
    /// back what the headers cannot express; a header counts where both differ.
    pub native: Option<Native>,
    /// `true` for a copy of a message of this system, under the same id: a driver must not let the
    /// broker drop it as a duplicate, and hands its id out again.
    pub is_copy: bool,
    /// `true` if the broker must refuse the message rather than confirm and drop it when no queue
    /// takes it. Means nothing on brokers that keep every message.
    pub is_mandatory: bool,
}

impl Outbound {
    /// Creates a message with only a payload.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: Some(payload.into()), ..Self::default() }
    }

    /// Takes the contents out of a message, to be delivered at once.
    pub(crate) fn take(message: &mut Message) -> Self {
        let copied = message.copied.take();
        Self {
            payload: message.payload.take(),
            key: message.key.take(),
            id: message.id.take(),
            headers: std::mem::take(&mut message.headers),
            deliver_at: None,
            is_copy: copied.is_some(),
            native: copied.and_then(|copied| copied.native),
            is_mandatory: message.is_mandatory,
        }
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
    /// The number of this attempt to handle the message, from 1: one more than the retries that
    /// were asked for and are counted where the message is kept. Being fetched ahead, given back or
    /// redelivered after a lost connection costs no attempt. Always 1 from a driver that keeps no
    /// count; the layer above counts the attempts of this process itself.
    pub attempt: u32,
    /// The number of times that the broker has handed the message out to this group, with this one,
    /// from 1; `None` from a broker that does not count.
    pub deliveries: Option<u32>,
    /// The number of [trials](DeliveryHandle::begin_trial) that were never heard of again, if the
    /// message is a suspect: one that may end the process that handles it. A message is a suspect
    /// if it was handed out [twice](Self::is_suspicious) without being heard of, and as long as such
    /// a trial is noted. `None` for all others, and from a driver that notes no trials.
    pub lost_trials: Option<u32>,
    /// The time at which the message was stored or sent.
    pub timestamp: Option<Timestamp>,
    /// The partition of the message.
    pub partition: Option<i32>,
    /// The offset or sequence number.
    pub offset: Option<i64>,
    /// The parts that only this system knows, for copies of the message; see [`Native`].
    pub native: Option<Native>,
    /// The time during which the message can be settled.
    pub tenure: Tenure,
    /// The handle that settles the message.
    pub handle: Box<dyn DeliveryHandle>,
}

impl Inbound {
    /// Returns `true` if a message was handed out twice or more without being heard of: neither
    /// settled nor sent back for another attempt. This is the rule of a broker that counts
    /// deliveries.
    ///
    /// ```
    /// use traced_broker::driver::Inbound;
    ///
    /// assert!(Inbound::is_suspicious(1, 3)); // at its first attempt, and handed out before, twice
    /// assert!(!Inbound::is_suspicious(3, 4)); // two attempts failed, and were heard of
    /// ```
    pub const fn is_suspicious(attempt: u32, deliveries: u32) -> bool {
        deliveries >= attempt.saturating_add(2)
    }
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
    /// The message is to be redelivered after the delay, with one more attempt counted. A delay is
    /// passed only to drivers whose capabilities declare
    /// [`Redelivery::NativeDelayed`](capability::Redelivery::NativeDelayed), a retry only to those
    /// that retry natively.
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
///     lost_trials: None,
///     timestamp: None,
///     partition: None,
///     offset: Some(7),
///     native: None,
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

    /// Notes that a handler begins on a [suspect](Inbound::lost_trials), where the note outlives this
    /// process, and confirms once it does. The handler begins then.
    ///
    /// The driver withdraws the note as soon as it hears of the delivery: it is settled, its
    /// [failure](Self::failed) is noted, or its handle is dropped. A note that was not withdrawn
    /// counts among the [lost trials](Inbound::lost_trials) when the message is handed out again.
    /// If the connection is lost meanwhile, the note is withdrawn over the next one: a lost
    /// connection does not make a lost trial.
    ///
    /// Called before each run of a handler on a suspect; does not block. An error means that the
    /// note could not be written; the handler begins all the same. By default nothing is noted.
    fn begin_trial(&self) -> Confirmation<()> {
        Confirmation::ready(Ok(()))
    }

    /// Frees the place of the delivery in the window of its source, because the message waits in
    /// this process: for another attempt, or behind an earlier one of its key. It stays unsettled,
    /// and is settled later. Returns `false` if it keeps its place, as by default. Called at most
    /// once; does not block.
    fn set_aside(&self) -> bool {
        false
    }

    /// Calls `visit` with each span attribute specific to this delivery; called only for spans that
    /// are recorded.
    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue));
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

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        (**self).publish(topic, message, confirmer);
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
