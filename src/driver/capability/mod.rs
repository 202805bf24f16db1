//! The capabilities of a broker as data. Programs query them, and the table in the README is tested
//! against them.

mod compare;
mod question;

use std::borrow::Cow;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::message::Start;

pub use crate::message::TimestampSource;
pub use compare::{Change, Comparison, Effect, compare};
pub use question::Question;

/// The durability of a confirmed publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Confirm {
    /// The broker never confirms; a publish returns an unconfirmed receipt.
    Never,
    /// The message is kept in the memory of this process.
    Process,
    /// The message is kept by the broker, with the durability configured there.
    Broker,
}

/// The way in which a retried message is redelivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Redelivery {
    /// It is not redelivered.
    Unsupported,
    /// The broker redelivers at once. This library implements delays by holding the message
    /// unsettled meanwhile.
    Native,
    /// The broker redelivers, with or without a delay.
    NativeDelayed,
    /// This library holds the message unsettled and hands it out again.
    Held,
}

/// The origin of the attempt number of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Attempts {
    /// The number is always 1.
    Never,
    /// This library counts while the consumer lives; the count starts at 1 again after the consumer
    /// ends.
    Process,
    /// The broker counts.
    Broker,
}

/// The scope within which messages keep the order in which they were published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// Each partition, and therefore each key.
    Partition,
    /// Each queue or stream, as long as one consumer reads it.
    Stream,
    /// Each publisher.
    Publisher,
}

/// The permitted contents of header values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeaderValues {
    /// Any bytes.
    Bytes,
    /// Text without line breaks.
    Text,
}

/// The capabilities of a broker.
///
/// A call that a broker does not support fails with [`ErrorKind::Unsupported`] as early as
/// possible: at `subscribe` rather than at the first retry.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::capability::{Confirm, Redelivery};
/// use traced_broker::{ErrorKind, TracedBroker, connect};
///
/// let broker = connect("memory://").await?;
/// let can = broker.capabilities();
/// assert!(can.delayed_publish && can.retry == Redelivery::NativeDelayed);
/// if can.confirm != Confirm::Broker {
///     println!("messages do not survive the end of this process");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The durability of a confirmed publish.
    pub confirm: Confirm,
    /// `true` if the members of a consumer group share the messages of a topic.
    pub groups: bool,
    /// `true` if messages are redelivered until they are settled.
    pub at_least_once: bool,
    /// `true` if a new group receives the messages published before it existed.
    pub backlog: bool,
    /// The way in which a retried message is redelivered.
    pub retry: Redelivery,
    /// The origin of the attempt number.
    pub attempts: Attempts,
    /// The scope within which order is kept.
    pub order: Order,
    /// `true` if messages have a native key by which the broker orders or routes them.
    pub native_key: bool,
    /// The clock that stamps messages, if any.
    pub timestamp: Option<TimestampSource>,
    /// The permitted contents of header values.
    pub header_values: HeaderValues,
    /// `true` if a message may have no payload at all, as opposed to an empty one.
    pub tombstones: bool,
    /// `true` if a message can be [published now and delivered later](crate::Message::deliver_at);
    /// the broker keeps it meanwhile.
    pub delayed_publish: bool,
    /// `true` if a new group or reader can begin at a [time](crate::Start::Time).
    pub start_at_time: bool,
    /// `true` if a new group or reader can begin at an [offset](crate::Start::Offset).
    pub start_at_offset: bool,
    /// `true` if the position of a group can be [moved](crate::TracedBroker::reposition), to repeat
    /// or skip messages.
    pub reposition: bool,
    /// `true` if a reader without a group continues after a lost connection behind the last message
    /// that it was handed; `false` if it begins at the latest again, and misses the messages
    /// published meanwhile.
    pub reader_resumes: bool,
    /// `true` if a settlement that was answered with `Ok` outlives the death of this process;
    /// `false` if it is sent or stored a moment later, so that the messages that a killed process
    /// settled last are redelivered.
    pub confirms_settlements: bool,
    /// `true` if the remaining delay of a retry that the broker waits for outlives a restart of the
    /// broker; `false` if such a message may come early. It is never lost.
    pub keeps_delays: bool,
    /// `true` if a message that is given back comes again before messages that were never handed
    /// out; `false` if a few of those may pass it.
    pub keeps_places: bool,
    /// `true` if a delivery that waits in this process can be [set
    /// aside](crate::driver::DeliveryHandle::set_aside), so that others pass any number of failing
    /// messages; `false` if those take up the prefetch.
    pub sets_aside: bool,
    /// `true` if a message that ends the process of its handler is found out: the driver [notes
    /// trials](crate::driver::DeliveryHandle::begin_trial) of suspects where the notes outlive the
    /// process. `false` if such a message comes again and again, or is forgotten.
    pub notes_trials: bool,
    /// The largest payload in bytes, if the client knows it.
    pub max_payload: Option<usize>,
}

impl Capabilities {
    /// Creates the base from which adapters declare their differences: the capabilities of the
    /// embedded memory broker, except delays, start positions by time or offset, moves, setting
    /// deliveries aside, and noting trials, which are declared explicitly.
    pub const fn new() -> Self {
        Self {
            confirm: Confirm::Process,
            groups: true,
            at_least_once: true,
            backlog: true,
            retry: Redelivery::NativeDelayed,
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
            reader_resumes: true,
            confirms_settlements: true,
            keeps_delays: true,
            keeps_places: true,
            sets_aside: false,
            notes_trials: false,
            max_payload: None,
        }
    }

    /// Returns the capabilities in words: pairs of a question and its answer. The questions and
    /// their order are always the same.
    ///
    /// ```
    /// let embedded = traced_broker::Capabilities::new();
    /// assert!(embedded.in_words().contains(&("backlog for a new group", "yes".into())));
    /// ```
    pub fn in_words(&self) -> Vec<(&'static str, Cow<'static, str>)> {
        Question::ALL.into_iter().map(|question| (question.as_str(), question.answer(self).words)).collect()
    }

    /// Checks that a group or reader can begin at this position.
    pub(crate) fn check_start(&self, start: Start) -> Result<()> {
        match start {
            Start::Time(_) if !self.start_at_time => Err(unsupported("begin at a time", STARTING_AT_TIME)),
            Start::Offset(_) if !self.start_at_offset => Err(unsupported("begin at an offset", STARTING_AT_OFFSET)),
            _ => Ok(()),
        }
    }

    /// Returns `true` if the broker itself redelivers a message after `delay`.
    pub(crate) fn retries_natively(&self, delay: Duration) -> bool {
        match self.retry {
            Redelivery::NativeDelayed => true,
            Redelivery::Native => delay.is_zero(),
            Redelivery::Held | Redelivery::Unsupported => false,
        }
    }

    /// Checks that this broker can carry a message with this payload (or without one), and delay it
    /// if requested.
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
                Err(Error::new(ErrorKind::TooLarge, "the payload is larger than the broker accepts")
                    .with_context("size", payload.len())
                    .with_context("limit", limit))
            }
            _ => Ok(()),
        }
    }
}

/// The brokers that can delay messages.
const DELAYING: &str = "memory://, amqp:// and nats:// (JetStream of server 2.12 or later)";
/// The brokers that can begin at a time.
const STARTING_AT_TIME: &str = "memory://, kafka://, nats:// (JetStream) and redis://";
/// The brokers that can begin at an offset.
const STARTING_AT_OFFSET: &str = "memory://, kafka:// and nats:// (JetStream)";
/// The brokers that can move the position of a group.
pub(crate) const REPOSITIONING: &str = "memory://, kafka://, nats:// (JetStream) and redis://";

/// Creates the error of a call that this broker does not support, with the brokers that do.
pub(crate) fn unsupported(what: &str, who_could: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("this broker cannot {what}; {who_could} can"))
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::new()
    }
}
