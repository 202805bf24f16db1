//! The contract between this library and an adapter.
//!
//! A [`Driver`] moves bytes and headers; everything that must be the same on every broker (spans, propagation, retries,
//! dead letters) is written once above it. A driver knows [`Headers`] and nothing of telemetry, so that no driver can
//! forget or break a trace.
//!
//! # Rules for implementors
//! - **Order.** [`Driver::publish`] enqueues before it returns; two calls that happen one after the other reach one topic
//!   (and partition, if keys are equal) in that order.
//! - **Outcome.** A confirmation is `Ok` only when the broker confirmed. An error is
//!   [marked unknown](Error::with_unknown_outcome) as soon as bytes may have left.
//! - **No policy.** A driver does not retry, does not dead-letter, does not count attempts beyond what the broker counts.
//! - **Bounds.** The layer above keeps at most [`Identity::max_in_flight`] publishes unconfirmed; a driver hands out at
//!   most [`Subscription::max_unsettled`] unsettled deliveries per subscription. No buffer may grow beyond these.
//! - **Generations.** A [`DeliveryHandle`] belongs to the connection or assignment it came from. Once that is gone, settling fails
//!   with [`ErrorKind::SettlementLost`] and touches no other message.
//! - **Reconnection.** A lost connection is restored by the driver, with back-off and without end, until `close`; a
//!   [`Source`] continues across it. Unconfirmed publishes of the old connection fail as unknown.
//! - **Hostile input.** What a foreign producer wrote may be anything: it is delivered with the headers that can be
//!   represented, never a panic, never a reconnect loop.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::address::{Start, Subscription, Topic};
use crate::capability::{Capabilities, TimestampSource};
use crate::error::{Error, ErrorKind, Result};
use crate::headers::Headers;
use crate::message::Receipt;

/// What an adapter implements; see the [module](self) for the rules.
#[async_trait]
pub trait Driver: fmt::Debug + Send + Sync + 'static {
    /// Who this is and where it is connected; constant for the life of the driver.
    fn identity(&self) -> &Identity;

    /// What this broker can do; constant for the life of the driver.
    fn capabilities(&self) -> &Capabilities;

    /// Makes sure that messages can be published to `topic`: creates what is missing, or only checks, by the adapter's option.
    ///
    /// Called once per topic before its first publish, and not again after a reconnection.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is missing and may not be created, [`ErrorKind::Conflict`] when it exists otherwise, or
    /// what the connection reports.
    async fn declare(&self, topic: &Topic) -> Result<Destination>;

    /// Enqueues one message, in call order, without blocking, and returns the confirmation to await.
    ///
    /// A confirmation that is dropped does not take the message back.
    fn publish(&self, topic: &Topic, message: Outbound) -> Confirmation<Receipt>;

    /// Starts a subscription whose names and bounds are valid.
    ///
    /// An [at-most-once](crate::address::Guarantee) subscription needs no care where messages can be acknowledged: the layer above
    /// acknowledges each as it hands it out.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for what this broker cannot do, [`ErrorKind::NotFound`] for missing topology that may
    /// not be created, or what the connection reports.
    async fn subscribe(&self, subscription: &Subscription) -> Result<Source>;

    /// Moves the position of the subscription's group, so that what comes next to its members begins at `start`; called only
    /// for groups, and for positions that the [capabilities](Capabilities::reposition) allow.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where positions cannot be moved, [`ErrorKind::Conflict`] where the group must have no members for it
    /// and has some, [`ErrorKind::NotFound`] for a topic that is missing, or what the connection reports.
    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()>;

    /// A round trip to the broker.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] when the broker does not answer, [`ErrorKind::Closed`] after `close`.
    async fn ping(&self) -> Result<()>;

    /// Ends every subscription, brings acknowledgements to the broker, and disconnects. A second call does nothing.
    ///
    /// The layer above has stopped publishing and awaited the confirmations.
    ///
    /// # Errors
    /// What could not be brought to the broker; the driver is closed all the same.
    async fn close(&self) -> Result<()>;
}

/// Who a driver is, for spans, metrics and errors.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Identity {
    /// The `messaging.system` of the semantic conventions: `kafka`, `rabbitmq`, `nats`, `redis`, `memory`; another broker's is a
    /// lower-case word of its own.
    pub system: &'static str,
    /// `server.address`: the host of the broker, without credentials.
    pub server_address: Option<Arc<str>>,
    /// `server.port`.
    pub server_port: Option<u16>,
    /// `messaging.client.id`: what the client calls itself to the broker, if it does.
    pub client_id: Option<Arc<str>>,
    /// How many publishes the layer above may leave unconfirmed at a time. One whose confirmation was given does not count: a driver
    /// that counts for itself makes room before it confirms.
    pub max_in_flight: usize,
    /// The attribute of send spans that holds the message's key, where the conventions name one.
    pub key_attribute: Option<&'static str>,
    /// The attribute of send spans that holds the [receipt's offset](Receipt::offset), where there is one.
    pub offset_attribute: Option<&'static str>,
}

/// How many publishes may be unconfirmed at a time unless an adapter says otherwise.
pub const DEFAULT_MAX_IN_FLIGHT: usize = 1024;

impl Identity {
    /// An identity without an address and with the default bound.
    pub fn new(system: &'static str) -> Self {
        Self {
            system,
            server_address: None,
            server_port: None,
            client_id: None,
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
            key_attribute: None,
            offset_attribute: None,
        }
    }

    /// Names the attributes that hold key and offset on send spans.
    #[must_use]
    pub fn with_send_attributes(mut self, key: Option<&'static str>, offset: Option<&'static str>) -> Self {
        self.key_attribute = key;
        self.offset_attribute = offset;
        self
    }

    /// Adds the address.
    #[must_use]
    pub fn with_server(mut self, address: impl AsRef<str>, port: u16) -> Self {
        self.server_address = Some(address.as_ref().into());
        self.server_port = Some(port);
        self
    }

    /// Adds the name that the client gives itself.
    #[must_use]
    pub fn with_client_id(mut self, id: impl AsRef<str>) -> Self {
        self.client_id = Some(id.as_ref().into());
        self
    }

    /// Sets the bound of unconfirmed publishes, at least 1.
    #[must_use]
    pub fn with_max_in_flight(mut self, publishes: usize) -> Self {
        self.max_in_flight = publishes.max(1);
        self
    }
}

/// What a topic or subscription is called natively, for spans.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Destination {
    /// `messaging.destination.name` where it differs from the topic, as RabbitMQ's conventions ask.
    pub name: Option<Arc<str>>,
    /// Attributes that every span of this destination has.
    pub attributes: Vec<(&'static str, AttributeValue)>,
}

impl Destination {
    /// A destination that is called what the topic is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the native name.
    #[must_use]
    pub fn named(mut self, name: impl AsRef<str>) -> Self {
        self.name = Some(name.as_ref().into());
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with_attribute(mut self, key: &'static str, value: impl Into<AttributeValue>) -> Self {
        self.attributes.push((key, value.into()));
        self
    }
}

/// The value of a span attribute that an adapter contributes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttributeValue {
    /// Text.
    Text(Arc<str>),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Flag(bool),
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<Arc<str>> for AttributeValue {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for AttributeValue {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for AttributeValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// A message on its way to the broker: headers complete, context injected.
#[derive(Debug, Clone, Default)]
pub struct Outbound {
    /// The payload; `None` is a tombstone, given only to drivers that say they carry them.
    pub payload: Option<Bytes>,
    /// The key.
    pub key: Option<Bytes>,
    /// The sender's id of the message.
    pub id: Option<String>,
    /// The headers, to be written in this order.
    pub headers: Headers,
    /// When consumers may get it, at the earliest; given only to drivers that can
    /// [delay](crate::Capabilities::delayed_publish), which keep it at the broker until then.
    pub deliver_at: Option<SystemTime>,
}

impl Outbound {
    /// A message that is nothing but a payload.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: Some(payload.into()), ..Self::default() }
    }
}

/// When a message was stored or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// The time.
    pub time: SystemTime,
    /// Whose clock it is.
    pub source: TimestampSource,
}

/// A message on its way to the application.
#[derive(Debug)]
pub struct Inbound {
    /// The payload, not copied again above; `None` is a tombstone.
    pub payload: Option<Bytes>,
    /// The key.
    pub key: Option<Bytes>,
    /// The message id: the sender's, or else the broker's.
    pub id: Option<String>,
    /// The headers as they are on the wire, in order; a header that cannot be represented is left out and counted.
    pub headers: Headers,
    /// How many headers of the wire could not be represented.
    pub unreadable_headers: u32,
    /// Which attempt at handling this message this is, as the broker counts, from 1; always 1 from a broker that does not count.
    pub attempt: u32,
    /// When the message was stored or sent.
    pub timestamp: Option<Timestamp>,
    /// The partition it came from.
    pub partition: Option<i32>,
    /// Its offset or sequence number.
    pub offset: Option<i64>,
    /// The way to settle it.
    pub handle: Box<dyn DeliveryHandle>,
}

/// What to tell the broker about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disposition {
    /// Handled: not to come back.
    Ack,
    /// To come back, after the delay. A delay is given only to drivers whose capabilities say
    /// [`Retry::NativeDelayed`](crate::capability::Retry), a retry only to those that retry natively.
    Retry(Duration),
    /// Not to come back; where the broker has a dead-letter mechanism configured of its own, it applies.
    Discard,
}

/// The native side of one delivery: settles it once and tells what is particular to it.
///
/// One that is dropped unsettled settles nothing: the message comes again, when its connection ends at the latest.
pub trait DeliveryHandle: fmt::Debug + Send + Sync {
    /// Tells the broker, in call order, without blocking, and returns the confirmation to await.
    ///
    /// Fails with [`ErrorKind::SettlementLost`] when the connection or assignment it came from is gone. It begins at the call: the
    /// confirmation is often dropped unread.
    fn settle(self: Box<Self>, disposition: Disposition) -> Confirmation<()>;

    /// Calls `visit` with each span attribute particular to this delivery; called only for spans that are recorded.
    fn attributes(&self, visit: &mut dyn FnMut(&'static str, AttributeValue));
}

/// A running subscription: deliveries, and what it is called natively. Dropping it ends it, and gives back what it has not yielded.
///
/// An error item reports trouble and does not end the stream; the end does.
pub struct Source {
    /// What the subscription is called natively.
    pub destination: Destination,
    stream: BoxStream<'static, Result<Inbound>>,
}

impl Source {
    /// A source of the messages of `stream`.
    pub fn new(
        destination: Destination,
        stream: impl futures_core::Stream<Item = Result<Inbound>> + Send + 'static,
    ) -> Self {
        Self { destination, stream: stream.boxed() }
    }

    /// Polls for the next message, as a stream does.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Inbound>>> {
        self.stream.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("destination", &self.destination).finish_non_exhaustive()
    }
}

/// The broker's answer to something already on its way: a future that may be dropped without undoing it.
#[must_use = "a confirmation that is not awaited tells nothing"]
pub struct Confirmation<T>(State<T>);

enum State<T> {
    Ready(Option<Result<T>>),
    Waiting(oneshot::Receiver<Result<T>>),
    Running(BoxFuture<'static, Result<T>>),
}

impl<T> Confirmation<T> {
    /// An answer that is known at once.
    pub fn ready(result: Result<T>) -> Self {
        Self(State::Ready(Some(result)))
    }

    /// An answer to be given by another task. If that task drops its [`Confirmer`], the answer is
    /// [`ErrorKind::Unavailable`] with an unknown outcome: right for any publish that was under way.
    pub fn pending() -> (Confirmer<T>, Self) {
        let (sender, receiver) = oneshot::channel();
        (Confirmer(sender), Self(State::Waiting(receiver)))
    }

    /// An answer that a client's own future gives; the operation must have begun already.
    pub fn running(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(State::Running(Box::pin(future)))
    }
}

impl<T: Unpin> Future for Confirmation<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match &mut self.0 {
            State::Ready(result) => Poll::Ready(result.take().unwrap_or_else(|| Err(unanswered()))),
            State::Waiting(receiver) => {
                Pin::new(receiver).poll(cx).map(|answer| answer.unwrap_or_else(|_| Err(unanswered())))
            }
            State::Running(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for Confirmation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confirmation")
    }
}

fn unanswered() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection ended before the broker answered").with_unknown_outcome()
}

/// The side of a [`Confirmation`] that gives the answer.
pub struct Confirmer<T>(oneshot::Sender<Result<T>>);

impl<T> Confirmer<T> {
    /// Gives the answer; nobody may be waiting for it any more, which is fine.
    pub fn confirm(self, result: Result<T>) {
        let _ = self.0.send(result);
    }
}

impl<T> fmt::Debug for Confirmer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confirmer")
    }
}

/// A shared driver is a driver.
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
