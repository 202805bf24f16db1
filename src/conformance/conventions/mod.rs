//! The messaging conventions of OpenTelemetry 1.44 as data, and the checks of every exported span
//! and metric against them.
//!
//! The tables are complete. An attribute in one of the [namespaces](NAMESPACES) that is neither in
//! the conventions nor in our registry fails the check, and so does a missing one.
//!
//! Sources: [spans](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/) and
//! [metrics](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/), with their
//! additions for Kafka and RabbitMQ.

mod attributes;
mod metric;
mod metrics;
mod sampling;
mod span;

#[cfg(test)]
mod registry_tests;
#[cfg(test)]
mod tests;

use crate::names;
use opentelemetry::Value;

pub(super) use metric::check_metric;
pub(super) use sampling::{SeenAtStart, Watching};
pub(super) use span::{Surroundings, check_span};

/// Prefixes of the attribute names that the tables govern, whichever component sets them on a span
/// of this library.
const NAMESPACES: [&str; 6] = ["messaging.", "traced_broker.", "job.", "server.", "network.", "error."];

/// A set of operations that spans are about, with one bit for each.
type Operations = u8;

/// Creation of a message's context.
const CREATE: Operations = 1;
/// Sending of a message with the span's own context.
const SEND: Operations = 1 << 1;
/// Sending of messages that already have contexts.
const TRANSFER: Operations = 1 << 2;
/// A call that returns messages.
const RECEIVE: Operations = 1 << 3;
/// Processing of messages by a handler.
const PROCESS: Operations = 1 << 4;
/// Settlement of messages with the broker.
const SETTLE: Operations = 1 << 5;
/// All operations on messages.
const ALL: Operations = CREATE | SEND | TRANSFER | RECEIVE | PROCESS | SETTLE;
/// Background work, which is not an operation on messages.
const JOB: Operations = 1 << 6;
/// The operations of consumers.
const CONSUMING: Operations = RECEIVE | PROCESS | SETTLE;

/// The type of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Integer,
    Double,
    Flag,
}

impl Type {
    fn is_of(self, value: &Value) -> bool {
        match self {
            Self::Text => matches!(value, Value::String(_)),
            Self::Integer => matches!(value, Value::I64(_)),
            Self::Double => matches!(value, Value::F64(_)),
            Self::Flag => matches!(value, Value::Bool(_)),
        }
    }

    /// Returns the name in a registry file.
    #[cfg(test)]
    const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Integer => "int",
            Self::Double => "double",
            Self::Flag => "boolean",
        }
    }
}

/// The definition of a metric.
#[derive(Debug)]
struct Metric {
    /// The name, the unit and the buckets.
    facts: names::metric::Metric,
    /// The attributes that its points may have, in groups, and whether they are required.
    attributes: &'static [&'static [(&'static str, bool)]],
    /// `true` if it is in our own registry and not in the conventions.
    #[cfg_attr(not(test), expect(dead_code, reason = "the registry is compared by tests"))]
    ours: bool,
}

impl Metric {
    fn attributes(&self) -> impl Iterator<Item = &(&'static str, bool)> {
        self.attributes.iter().copied().flatten()
    }

    const fn is_histogram(&self) -> bool {
        !self.facts.buckets.is_empty()
    }
}
