//! What a broker can and cannot do, as data: programs ask it, and the README's table is tested against it.

mod compare;
mod question;

use std::borrow::Cow;
use std::time::Duration;

use crate::address::Start;
use crate::error::{Error, ErrorKind, Result};

pub use compare::{Change, Comparison, Effect, compare};
pub use question::Question;

/// What a confirmed publish has survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Confirm {
    /// The broker never confirms; a publish ends with an unconfirmed receipt.
    Never,
    /// Kept in this process's memory.
    Process,
    /// Kept by the broker as durably as it is configured to.
    Broker,
}

/// How a retried message comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Retry {
    /// It does not.
    Unsupported,
    /// The broker redelivers at once; a delay is kept by this library, which holds the message unsettled meanwhile.
    Native,
    /// The broker redelivers, also after a delay.
    NativeDelayed,
    /// This library holds the message unsettled and hands it out again.
    Held,
}

/// Where the attempt number of a delivery comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Attempts {
    /// Always 1.
    Never,
    /// Counted by this library while the consumer lives; starts at 1 again after its end.
    Process,
    /// Counted by the broker.
    Broker,
}

/// Within what messages keep the order in which they were published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// Per partition, hence per key.
    Partition,
    /// Per queue or stream, as long as one consumer reads it.
    Stream,
    /// Per publisher.
    Publisher,
}

/// What header values may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeaderValues {
    /// Any bytes.
    Bytes,
    /// Text without line breaks.
    Text,
}

/// Whose clock stamped a message, and so what its time in the queue is measured from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimestampSource {
    /// The broker's, when it stored the message.
    Broker,
    /// The producer's, carried in a property or header.
    Producer,
}

impl TimestampSource {
    /// The name used as attribute value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Producer => "producer",
        }
    }
}

/// What a broker can and cannot do.
///
/// A call that a broker cannot serve fails with [`ErrorKind::Unsupported`] at the earliest moment: at `subscribe` rather
/// than at the first retry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// What a confirmed publish has survived.
    pub confirm: Confirm,
    /// Consumer groups share the messages of a topic.
    pub groups: bool,
    /// Messages come back until they are settled.
    pub at_least_once: bool,
    /// A new group gets the messages published before it existed.
    pub backlog: bool,
    /// How a retried message comes back.
    pub retry: Retry,
    /// Where the attempt number comes from.
    pub attempts: Attempts,
    /// Within what order is kept.
    pub order: Order,
    /// Messages carry a key natively, by which the broker keeps order or routes.
    pub native_key: bool,
    /// Whose clock stamps messages, if any.
    pub timestamp: Option<TimestampSource>,
    /// What header values may hold.
    pub header_values: HeaderValues,
    /// A message may have no payload at all, which is not the same as an empty one.
    pub tombstones: bool,
    /// A message can be [published now and delivered later](crate::Message::deliver_at); the broker keeps it meanwhile.
    pub delayed_publish: bool,
    /// A new group or reader can begin at a [time](crate::Start::Time).
    pub start_at_time: bool,
    /// A new group or reader can begin at an [offset](crate::Start::Offset).
    pub start_at_offset: bool,
    /// The position of a group can be [moved](crate::TracedBroker::reposition), to repeat or to skip messages.
    pub reposition: bool,
    /// The largest payload in bytes, where it is known to the client.
    pub max_payload: Option<usize>,
}

impl Capabilities {
    /// A base for adapters to state their differences from: what the embedded memory broker can do, without delays, positions by time
    /// or offset, and moves, which an adapter declares when it has them.
    pub const fn new() -> Self {
        Self {
            confirm: Confirm::Process,
            groups: true,
            at_least_once: true,
            backlog: true,
            retry: Retry::NativeDelayed,
            attempts: Attempts::Broker,
            order: Order::Stream,
            native_key: true,
            timestamp: Some(TimestampSource::Broker),
            header_values: HeaderValues::Bytes,
            tombstones: true,
            delayed_publish: false,
            start_at_time: false,
            start_at_offset: false,
            reposition: false,
            max_payload: None,
        }
    }

    /// What the broker can do, in words: pairs of a question and its answer, always the same questions in the same order.
    ///
    /// ```
    /// let embedded = traced_broker::Capabilities::new();
    /// assert!(embedded.in_words().contains(&("backlog for a new group", "yes".into())));
    /// ```
    pub fn in_words(&self) -> Vec<(&'static str, Cow<'static, str>)> {
        Question::ALL.into_iter().map(|question| (question.as_str(), question.answer(self).words)).collect()
    }

    /// Checks that a group or reader can begin there.
    pub(crate) fn check_start(&self, start: Start) -> Result<()> {
        match start {
            Start::Time(_) if !self.start_at_time => Err(unsupported("begin at a time", STARTING_AT_TIME)),
            Start::Offset(_) if !self.start_at_offset => Err(unsupported("begin at an offset", STARTING_AT_OFFSET)),
            _ => Ok(()),
        }
    }

    /// Whether the broker itself brings a message back after `delay`.
    pub(crate) fn retries_natively(&self, delay: Duration) -> bool {
        match self.retry {
            Retry::NativeDelayed => true,
            Retry::Native => delay.is_zero(),
            Retry::Held | Retry::Unsupported => false,
        }
    }

    /// Checks that this broker can carry a message with this payload, or none, and keep it back if it is to be delayed.
    pub(crate) fn check_message(&self, payload: Option<&[u8]>, delayed: bool) -> Result<()> {
        if delayed && !self.delayed_publish {
            return Err(unsupported("keep a message for later", DELAYING));
        }
        match (payload, self.max_payload) {
            (None, _) if !self.tombstones => Err(Error::new(
                ErrorKind::Unsupported,
                "this broker has no messages without a payload; send an empty one, or use kafka:// or memory://",
            )),
            (Some(payload), Some(limit)) if payload.len() > limit => {
                Err(Error::new(ErrorKind::TooLarge, "the payload is larger than the broker takes")
                    .with_context("size", payload.len())
                    .with_context("limit", limit))
            }
            _ => Ok(()),
        }
    }
}

/// Which brokers can keep a message for later.
const DELAYING: &str = "memory://, amqp:// and nats:// (JetStream of server 2.12 or later)";
/// Which brokers can begin at a time.
const STARTING_AT_TIME: &str = "memory://, kafka://, nats:// (JetStream) and redis://";
/// Which brokers can begin at an offset.
const STARTING_AT_OFFSET: &str = "memory://, kafka:// and nats:// (JetStream)";
/// Which brokers can move the position of a group.
pub(crate) const REPOSITIONING: &str = "memory://, kafka://, nats:// (JetStream) and redis://";

/// The error of a call that this broker cannot serve, with the brokers that could.
pub(crate) fn unsupported(what: &str, who_could: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("this broker cannot {what}; {who_could} can"))
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::new()
    }
}
