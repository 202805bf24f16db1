//! What the messaging conventions, and this library's own attributes, say about a span.

use std::time::Duration;

use super::attributes::Attributes;
use super::span::{Kind, Span};
use crate::span::{DELIVERY_ATTEMPT, QUEUE_DURATION};

const OPERATION_TYPE: &str = "messaging.operation.type";
const DESTINATION_NAME: &str = "messaging.destination.name";
const CONSUMER_GROUP: &str = "messaging.consumer.group.name";
const BATCH_COUNT: &str = "messaging.batch.message_count";

/// What a span does with messages: the values of `messaging.operation.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Makes one message of a batch, so that it has a context of its own.
    Create,
    /// Hands messages to the broker.
    Send,
    /// Asks the broker for messages.
    Receive,
    /// Handles messages.
    Process,
    /// Acknowledges or refuses messages.
    Settle,
}

impl Operation {
    /// The value in `messaging.operation.type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Process => "process",
            Self::Settle => "settle",
        }
    }

    /// The kinds a span of this operation may have (semantic conventions, messaging spans, "Span
    /// kind").
    #[must_use]
    pub const fn kinds(self) -> &'static [Kind] {
        match self {
            // The context of these may be the one the message carries, or the message already has
            // one.
            Self::Create | Self::Send => &[Kind::Producer, Kind::Client],
            // Versions of the conventions before the current one made this a consumer.
            Self::Receive => &[Kind::Client, Kind::Consumer],
            Self::Settle => &[Kind::Client],
            Self::Process => &[Kind::Consumer],
        }
    }
}

impl Span {
    /// The messaging operation the span says it is; `None` without a known
    /// `messaging.operation.type`.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        use Operation::{Create, Process, Receive, Send, Settle};
        let declared = self.attributes.text(OPERATION_TYPE)?;
        [Create, Send, Receive, Process, Settle].into_iter().find(|operation| operation.as_str() == declared)
    }

    /// The messaging operation the span amounts to: the declared one, else what its kind implies.
    ///
    /// Instrumentations that predate `messaging.operation.type` still say PRODUCER and CONSUMER.
    #[must_use]
    pub fn role(&self) -> Option<Operation> {
        self.operation().or(match self.kind {
            Kind::Producer => Some(Operation::Send),
            Kind::Consumer => Some(Operation::Process),
            _ => None,
        })
    }

    /// Whether the span hands a message over: what a message's creation context must belong to.
    #[must_use]
    pub fn is_producing(&self) -> bool {
        matches!(self.role(), Some(Operation::Create | Operation::Send))
    }

    /// Whether the span handles messages.
    #[must_use]
    pub fn is_processing(&self) -> bool {
        self.role() == Some(Operation::Process)
    }

    /// The topic: `messaging.destination.name`, else the span's name without its first word; empty
    /// when there is neither.
    #[must_use]
    pub fn destination(&self) -> &str {
        let named = || self.name.split_once(' ').map_or("", |(_, rest)| rest);
        self.attributes.text(DESTINATION_NAME).unwrap_or_else(named)
    }

    /// The consumer group, where one is given.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.attributes.text(CONSUMER_GROUP)
    }

    /// The delivery attempt the span says it handled, from 1.
    #[must_use]
    pub fn attempt(&self) -> Option<u32> {
        self.attributes.int(DELIVERY_ATTEMPT).and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)
    }

    /// How many messages the span says it handled at once; `None` when it is not a batch.
    #[must_use]
    pub fn batch_size(&self) -> Option<usize> {
        self.attributes.int(BATCH_COUNT).and_then(|number| usize::try_from(number).ok())
    }
}

/// The queue time written in `attributes`, of a process span or of its link to a message's creation context; `None` when
/// it is absent, negative or not a number.
pub(super) fn queue_duration(attributes: &Attributes) -> Option<Duration> {
    Duration::try_from_secs_f64(attributes.double(QUEUE_DURATION)?).ok()
}

/// Whether a message sent to `sent_to` can be read from `read_from`.
///
/// For RabbitMQ the conventions let a consumer append its queue to the producer's
/// `{exchange}:{routing key}`.
pub(super) fn reaches(sent_to: &str, read_from: &str) -> bool {
    read_from.strip_prefix(sent_to).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}
