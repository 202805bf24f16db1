//! The spans of a message's way: names, kinds, attributes and status, as the messaging conventions of
//! OpenTelemetry 1.44 have them.

mod process;
mod send;
mod settle;
mod template;

use opentelemetry::trace::{Span, SpanKind, Status};
use opentelemetry::{KeyValue, Value};

use crate::driver::AttributeValue;

pub(crate) use process::ProcessSpan;
pub(crate) use send::SendSpan;
pub(crate) use settle::{SettleSpan, SettleTemplates};
pub(crate) use template::SpanTemplate;

/// The version of the semantic conventions that spans follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Attribute of process spans, and the name of a metric: seconds from the message's [timestamp](crate::driver::Timestamp) until it was
/// handed out, never negative.
pub const QUEUE_DURATION: &str = "traced_broker.queue.duration";
/// Attribute of process spans and of the queue metrics: whose clock the queue duration starts from, `broker` or `producer`.
pub const QUEUE_CLOCK: &str = "traced_broker.queue.clock";
/// Attribute of process spans: the timestamp lies in the future, so that the queue duration is 0 for want of a better one; absent if not.
pub const QUEUE_IS_SKEWED: &str = "traced_broker.queue.is_skewed";
/// Attribute of process spans: which attempt at the message this is, from 1.
pub const DELIVERY_ATTEMPT: &str = "traced_broker.delivery.attempt";
/// Attribute of process spans: how the delivery was settled, `ack`, `retry`, `reject` or `none`; for a batch that was not settled in one way, `mixed`.
pub const SETTLEMENT: &str = "traced_broker.settlement";
/// Attribute of send and process spans, and of the queue metrics: the [kind of hop](crate::propagation::Hop) where it is not a direct one.
pub const HOP: &str = "traced_broker.hop";
/// Attribute of process spans: how the span relates to the creation context, `link` or `ignore`; absent for a child.
pub const CONTEXT_POLICY: &str = "traced_broker.context.policy";
/// Attribute of process spans: which [dialect](crate::dialect) of another system the context was read from; absent for the usual headers.
pub const CONTEXT_DIALECT: &str = "traced_broker.context.dialect";

/// OpenTelemetry's SDK keeps that many links per span and drops the rest without a word.
pub(crate) const MAX_LINKS: usize = 128;

/// An operation of the messaging conventions, with the span kind it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A message gets its creation context ahead of a batch.
    Create,
    /// One message goes out and carries this span's context.
    Send,
    /// Messages go out that carry contexts of their own: batches and forwards.
    Transfer,
    /// A handler works on a message.
    Process,
    /// The broker is told that a message was handled.
    Ack,
    /// The broker is told to hand a message out again.
    Retry,
    /// The broker is told to give a message up.
    Reject,
}

impl Operation {
    /// `messaging.operation.name`, and the first word of the span's name.
    const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Send | Self::Transfer => "send",
            Self::Process => "process",
            Self::Ack => "ack",
            Self::Retry => "retry",
            Self::Reject => "reject",
        }
    }

    /// `messaging.operation.type`.
    const fn kind_of_operation(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Send | Self::Transfer => "send",
            Self::Process => "process",
            Self::Ack | Self::Retry | Self::Reject => "settle",
        }
    }

    const fn span_kind(self) -> SpanKind {
        match self {
            Self::Create | Self::Send => SpanKind::Producer,
            Self::Transfer | Self::Ack | Self::Retry | Self::Reject => SpanKind::Client,
            Self::Process => SpanKind::Consumer,
        }
    }
}

fn fail(span: &mut impl Span, error_type: &'static str, description: String) {
    span.set_attribute(KeyValue::new("error.type", error_type));
    span.set_status(Status::error(description));
}

fn otel(value: AttributeValue) -> Value {
    match value {
        AttributeValue::Text(text) => text.into(),
        AttributeValue::Integer(number) => number.into(),
        AttributeValue::Flag(flag) => flag.into(),
    }
}
