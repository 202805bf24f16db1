//! Attributes of the messaging conventions, and of this library, on spans.

use crate::names::attribute;
use std::time::Duration;

use super::attributes::Attributes;
use super::span::{Kind, Span};

const OPERATION_TYPE: &str = attribute::OPERATION_TYPE;
const DESTINATION_NAME: &str = attribute::DESTINATION_NAME;
const CONSUMER_GROUP: &str = attribute::CONSUMER_GROUP_NAME;
const BATCH_COUNT: &str = attribute::BATCH_MESSAGE_COUNT;

/// The operation of a span on messages: the values of `messaging.operation.type`.
///
/// ```
/// use traced_broker::verify::{Attributes, Kind, Operation, Span, SpanId, TraceId, Value};
///
/// let mut span = Span::new(TraceId::new(1), SpanId::new(1), "settle orders");
/// span.kind = Kind::Client;
/// let operation = ("messaging.operation.type", Value::String("settle".to_owned()));
/// span.attributes = Attributes::from_iter([operation]);
/// assert_eq!(span.operation(), Some(Operation::Settle));
/// assert!(Operation::Settle.kinds().contains(&span.kind));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Creates one message of a batch, so that the message has its own context.
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
    /// Returns the value of `messaging.operation.type`.
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

    /// Returns the kinds a span of this operation may have (semantic conventions, messaging spans,
    /// "Span kind").
    #[must_use]
    pub const fn kinds(self) -> &'static [Kind] {
        match self {
            // A producer if the message carries the context of this span, a client if the message
            // already had one.
            Self::Create | Self::Send => &[Kind::Producer, Kind::Client],
            // Earlier versions of the conventions made this a consumer.
            Self::Receive => &[Kind::Client, Kind::Consumer],
            Self::Settle => &[Kind::Client],
            Self::Process => &[Kind::Consumer],
        }
    }
}

impl Span {
    /// Returns the messaging operation the span declares; `None` without a known
    /// `messaging.operation.type`.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        use Operation::{Create, Process, Receive, Send, Settle};
        let declared = self.attributes.text(OPERATION_TYPE)?;
        [Create, Send, Receive, Process, Settle].into_iter().find(|operation| operation.as_str() == declared)
    }

    /// Returns the messaging operation of the span: the declared one, otherwise the one its kind
    /// implies.
    ///
    /// Instrumentations that predate `messaging.operation.type` still set PRODUCER and CONSUMER.
    ///
    /// ```
    /// use traced_broker::verify::{Kind, Operation, Span, SpanId, TraceId};
    ///
    /// let mut span = Span::new(TraceId::new(1), SpanId::new(1), "orders publish");
    /// span.kind = Kind::Producer;
    /// assert_eq!(span.operation(), None);
    /// assert_eq!(span.role(), Some(Operation::Send));
    /// ```
    #[must_use]
    pub fn role(&self) -> Option<Operation> {
        self.operation().or(match self.kind {
            Kind::Producer => Some(Operation::Send),
            Kind::Consumer => Some(Operation::Process),
            _ => None,
        })
    }

    /// Returns `true` if the span hands a message over. A message's creation context must belong to
    /// such a span.
    #[must_use]
    pub fn is_producing(&self) -> bool {
        matches!(self.role(), Some(Operation::Create | Operation::Send))
    }

    /// Returns `true` if the span handles messages.
    #[must_use]
    pub fn is_processing(&self) -> bool {
        self.role() == Some(Operation::Process)
    }

    /// Returns the topic: `messaging.destination.name`, otherwise the span's name without its first
    /// word; empty if there is neither.
    #[must_use]
    pub fn destination(&self) -> &str {
        let named = || self.name.split_once(' ').map_or("", |(_, rest)| rest);
        self.attributes.text(DESTINATION_NAME).unwrap_or_else(named)
    }

    /// Returns the consumer group, if the span states one.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.attributes.text(CONSUMER_GROUP)
    }

    /// Returns the delivery attempt the span states, from 1.
    #[must_use]
    pub fn attempt(&self) -> Option<u32> {
        self.attributes
            .int(attribute::DELIVERY_ATTEMPT)
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| *number > 0)
    }

    /// Returns the number of messages the span handled at once; `None` if it is not a batch.
    #[must_use]
    pub fn batch_size(&self) -> Option<usize> {
        self.attributes.int(BATCH_COUNT).and_then(|number| usize::try_from(number).ok())
    }
}

/// Returns the queue time in `attributes`, of a process span or of its link to a message's creation
/// context; `None` if it is absent, negative or not a number.
pub(super) fn queue_duration(attributes: &Attributes) -> Option<Duration> {
    Duration::try_from_secs_f64(attributes.double(attribute::QUEUE_DURATION)?).ok()
}

/// Returns `true` if a message sent to `sent_to` can be read from `read_from`.
///
/// For RabbitMQ, the conventions let a consumer append its queue to the producer's
/// `{exchange}:{routing key}`.
pub(super) fn reaches(sent_to: &str, read_from: &str) -> bool {
    read_from.strip_prefix(sent_to).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}
