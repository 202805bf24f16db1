//! What people ask of a broker, and what its capabilities answer.

use std::borrow::Cow;

use super::{Attempts, Capabilities, Confirm, HeaderValues, Order, Retry, TimestampSource};

/// A question about a broker that its [`Capabilities`] answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Question {
    /// What a confirmed publish has survived.
    Confirm,
    /// Whether consumers of a group share the messages.
    Groups,
    /// Whether messages come back until they are settled.
    Redelivery,
    /// Whether a new group gets what was published before.
    Backlog,
    /// How a retried message comes back.
    Retry,
    /// Who counts attempts.
    Attempts,
    /// Within what order is kept.
    Order,
    /// Whether the broker knows the key of a message.
    Key,
    /// Whose clock the time in the queue is measured by.
    Clock,
    /// What header values may hold.
    HeaderValues,
    /// Whether a message may have no payload at all.
    Tombstones,
    /// How large a payload may be.
    Size,
    /// Whether a message can be published now and delivered later.
    DelayedPublish,
    /// Whether a group can begin at a time.
    StartAtTime,
    /// Whether a group can begin at an offset.
    StartAtOffset,
    /// Whether a group can be moved, to repeat or skip messages.
    Reposition,
    /// Whether messages can be published and consumed by the batch.
    Batches,
    /// Whether requests can be replied to.
    RequestReply,
}

/// The answer to a question: in words, and how much it gives, for comparing two of them.
pub(super) struct Answer {
    pub(super) words: Cow<'static, str>,
    /// `None` where no answer is more than another.
    pub(super) rank: Option<usize>,
}

impl Question {
    /// Every question, in the order in which tables have them.
    pub const ALL: [Self; 18] = [
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
        Self::Batches,
        Self::RequestReply,
    ];

    /// The question as tables have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirm => "a confirmed message is",
            Self::Groups => "consumer groups",
            Self::Redelivery => "comes back until settled",
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
                Retry::NativeDelayed => ranked(3, "by the broker, delays too"),
                Retry::Native => ranked(2, "by the broker, delays here"),
                Retry::Held => ranked(1, "here"),
                Retry::Unsupported => ranked(0, "no"),
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

    /// The answer to a question of yes or no; `None` for what every broker can, by means of this library.
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
            _ => None,
        }
    }

    /// What a program has to do about having less of it.
    pub(super) const fn advice(self) -> &'static str {
        match self {
            Self::Confirm => "a confirmed message may be lost: check what your data can bear",
            Self::Groups => "members cannot share messages: run one consumer, or another broker",
            Self::Redelivery => "subscribe at_most_once(); what a handler fails at is gone",
            Self::Backlog => "subscribe every group before the first publish",
            Self::Retry => "messages waiting for a retry are held unsettled in this process, within its prefetch",
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

/// A size in the largest unit that it is a whole number of.
fn size(bytes: Option<usize>) -> Cow<'static, str> {
    let Some(bytes) = bytes else { return "not limited".into() };
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = units.iter().find(|(_, bits)| bytes >> bits > 0 && bytes.trailing_zeros() >= *bits);
    match whole {
        Some((unit, bits)) => format!("{} {unit}", bytes >> bits).into(),
        None => format!("{bytes} bytes").into(),
    }
}
