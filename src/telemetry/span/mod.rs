//! The spans of a message: names, kinds, attributes and status, according to the messaging
//! conventions of OpenTelemetry 1.44.

mod process;
mod send;
mod settle;
mod subscription;
mod template;

use opentelemetry::trace::{Span, SpanKind, Status};
use opentelemetry::{KeyValue, Value};

use crate::driver::AttributeValue;
use crate::names::attribute;

pub(crate) use process::ProcessSpan;
pub(crate) use send::{SendSpan, SentCount};
pub(crate) use settle::SettleSpan;
pub(crate) use subscription::{SubscriptionTelemetry, WaitingGauge, WaitingReason};
pub(crate) use template::SpanTemplate;

/// Maximum number of links per span; OpenTelemetry's SDK silently drops the rest.
pub(crate) const MAX_LINKS: usize = 128;

/// An operation of the messaging conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A message gets its creation context ahead of a batch.
    Create,
    /// A message is published and carries this span's context.
    Send,
    /// Messages are published that carry their own contexts: batches and forwards.
    Transfer,
    /// A handler processes a message.
    Process,
    /// The broker is told that a message was handled.
    Ack,
    /// The broker is told to redeliver a message.
    Retry,
    /// The broker is told to discard a message.
    Reject,
}

impl Operation {
    /// Returns `messaging.operation.name`, which is also the first word of the span's name.
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

    /// Returns `messaging.operation.type`.
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
    span.set_attribute(KeyValue::new(attribute::ERROR_TYPE, error_type));
    span.set_status(Status::error(description));
}

fn otel(value: AttributeValue) -> Value {
    match value {
        AttributeValue::Text(text) => text.into(),
        AttributeValue::Integer(number) => number.into(),
        AttributeValue::Flag(flag) => flag.into(),
    }
}
