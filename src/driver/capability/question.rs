//! The questions about a broker that its capabilities answer.

use std::borrow::Cow;

use super::{Attempts, Capabilities, Confirm, HeaderValues, Order, Redelivery, TimestampSource};

/// A question about a broker that its [`Capabilities`] answer.
///
/// ```
/// use traced_broker::Capabilities;
/// use traced_broker::capability::Question;
///
/// let mut can = Capabilities::new();
/// can.tombstones = false;
/// let question = Question::Tombstones.as_str();
/// assert_eq!(question, "messages without payload");
/// assert!(can.in_words().contains(&(question, "no".into())));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Question {
    /// The durability of a confirmed publish.
    Confirm,
    /// Sharing of messages among the consumers of a group.
    Groups,
    /// Redelivery of messages until they are settled.
    Redelivery,
    /// Delivery of earlier messages to a new group.
    Backlog,
    /// The way in which a retried message is redelivered.
    Retry,
    /// The counting of attempts.
    Attempts,
    /// The scope within which order is kept.
    Order,
    /// Knowledge of message keys at the broker.
    Key,
    /// The clock for the time in the queue.
    Clock,
    /// The permitted contents of header values.
    HeaderValues,
    /// Support for messages without any payload.
    Tombstones,
    /// The maximum size of a payload.
    Size,
    /// Publishing now for later delivery.
    DelayedPublish,
    /// Starting a group at a time.
    StartAtTime,
    /// Starting a group at an offset.
    StartAtOffset,
    /// Moving a group, to repeat or skip messages.
    Reposition,
    /// Continuation of readers without a group after a lost connection.
    Readers,
    /// Durability of a settlement when it is answered.
    Settlements,
    /// Publishing and consuming in batches.
    Batches,
    /// Request and reply.
    RequestReply,
}

/// The answer to a question: in words, and with a rank for comparison.
pub(super) struct Answer {
    pub(super) words: Cow<'static, str>,
    /// `None` if the answers have no ranking.
    pub(super) rank: Option<usize>,
}

impl Question {
    /// Every question, in the order of tables.
    pub const ALL: [Self; 20] = [
        Self::Confirm,
        Self::Groups,
        Self::Redelivery,
        Self::Backlog,
        Self::Retry,
        Self::Attempts,
        Self::Order,
        Self::Key,
        Self::Clock,
        Self::HeaderValues,
        Self::Tombstones,
        Self::Size,
        Self::DelayedPublish,
        Self::StartAtTime,
        Self::StartAtOffset,
        Self::Reposition,
        Self::Readers,
        Self::Settlements,
        Self::Batches,
        Self::RequestReply,
    ];

    /// Returns the wording of the question in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirm => "a confirmed message is",
            Self::Groups => "consumer groups",
            Self::Redelivery => "redelivered until settled",
            Self::Backlog => "backlog for a new group",
            Self::Retry => "retries are done",
            Self::Attempts => "attempts are counted",
            Self::Order => "order is kept",
            Self::Key => "the broker knows the key",
            Self::Clock => "time in the queue by",
            Self::HeaderValues => "header values are",
            Self::Tombstones => "messages without payload",
            Self::Size => "largest payload",
            Self::DelayedPublish => "delayed messages",
            Self::StartAtTime => "start at a time",
            Self::StartAtOffset => "start at an offset",
            Self::Reposition => "groups can be moved",
            Self::Readers => "readers continue after an outage",
            Self::Settlements => "settlements are confirmed",
            Self::Batches => "batches",
            Self::RequestReply => "request and reply",
        }
    }

    pub(super) fn answer(self, of: &Capabilities) -> Answer {
        match self {
            Self::Confirm => match of.confirm {
                Confirm::Broker => ranked(2, "kept by the broker"),
                Confirm::Process => ranked(1, "kept in this process"),
                Confirm::Never => ranked(0, "never confirmed"),
            },
            Self::Retry => match of.retry {
                Redelivery::NativeDelayed => ranked(3, "by the broker, delays too"),
                Redelivery::Native => ranked(2, "by the broker, delays here"),
                Redelivery::Held => ranked(1, "here"),
                Redelivery::Unsupported => ranked(0, "no"),
            },
            Self::Attempts => match of.attempts {
                Attempts::Broker => ranked(2, "by the broker"),
                Attempts::Process => ranked(1, "here"),
                Attempts::Never => ranked(0, "no"),
            },
            Self::Order => Answer { words: order(of.order).into(), rank: None },
            Self::Clock => match of.timestamp {
                Some(TimestampSource::Broker) => ranked(2, "the broker's clock"),
                Some(TimestampSource::Producer) => ranked(1, "the producer's clock"),
                None => ranked(0, "unknown"),
            },
            Self::HeaderValues => match of.header_values {
                HeaderValues::Bytes => ranked(1, "bytes"),
                HeaderValues::Text => ranked(0, "text"),
            },
            Self::Size => Answer { words: size(of.max_payload), rank: Some(of.max_payload.unwrap_or(usize::MAX)) },
            _ => {
                self.yes_no(of).map_or(ranked(1, "yes"), |yes| ranked(usize::from(yes), if yes { "yes" } else { "no" }))
            }
        }
    }

    /// Returns the answer to a yes-or-no question; `None` for a feature that this library provides
    /// on every broker.
    fn yes_no(self, of: &Capabilities) -> Option<bool> {
        match self {
            Self::Groups => Some(of.groups),
            Self::Redelivery => Some(of.at_least_once),
            Self::Backlog => Some(of.backlog),
            Self::Key => Some(of.native_key),
            Self::Tombstones => Some(of.tombstones),
            Self::DelayedPublish => Some(of.delayed_publish),
            Self::StartAtTime => Some(of.start_at_time),
            Self::StartAtOffset => Some(of.start_at_offset),
            Self::Reposition => Some(of.reposition),
            Self::Readers => Some(of.reader_resumes),
            Self::Settlements => Some(of.confirms_settlements),
            _ => None,
        }
    }

    /// Returns the advice for a program whose new broker offers less.
    pub(super) const fn advice(self) -> &'static str {
        match self {
            Self::Confirm => "a confirmed message may be lost: check that your application tolerates it",
            Self::Groups => "members cannot share messages: run one consumer, or another broker",
            Self::Redelivery => "subscribe at_most_once(); a message whose handler fails is lost",
            Self::Backlog => "subscribe every group before the first publish",
            Self::Retry => {
                "messages waiting for a retry are held unsettled in this process, and redelivered if it ends"
            }
            Self::Attempts => "attempts are counted anew after a restart of the consumer",
            Self::Order => "check what ordered_by_key() and parallel consumers rely on",
            Self::Key => "keys travel with messages and order consumers here; the broker does not route by them",
            Self::Clock => "the time in the queue depends on the producers' clocks",
            Self::HeaderValues => "encode binary header values; a publish with line breaks in one is refused",
            Self::Tombstones => "publish an empty payload in place of a tombstone",
            Self::Size => "larger payloads are refused with both sizes",
            Self::DelayedPublish => "Message::delay and deliver_at fail with Unsupported",
            Self::StartAtTime => "Start::Time fails with Unsupported at subscribe",
            Self::StartAtOffset => "Start::Offset fails with Unsupported at subscribe",
            Self::Reposition => "reposition fails with Unsupported: use a new group to replay",
            Self::Readers => "use a group for what must not be missed while a connection is lost",
            Self::Settlements => "messages settled just before a process is killed are redelivered",
            Self::Batches | Self::RequestReply => "",
        }
    }
}

fn ranked(rank: usize, words: &'static str) -> Answer {
    Answer { words: words.into(), rank: Some(rank) }
}

const fn order(order: Order) -> &'static str {
    match order {
        Order::Partition => "per partition, so per key",
        Order::Stream => "per topic",
        Order::Publisher => "per publisher",
    }
}

/// Formats a size in the largest unit of which it is a whole multiple.
fn size(bytes: Option<usize>) -> Cow<'static, str> {
    let Some(bytes) = bytes else { return "not limited".into() };
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = units.iter().find(|(_, bits)| bytes >> bits > 0 && bytes.trailing_zeros() >= *bits);
    match whole {
        Some((unit, bits)) => format!("{} {unit}", bytes >> bits).into(),
        None => format!("{bytes} bytes").into(),
    }
}
