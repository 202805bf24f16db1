//! The messaging conventions of OpenTelemetry 1.44 as data, and the check that holds every exported span to them.
//!
//! What is not in the tables does not exist: an attribute in one of the [namespaces](NAMESPACES) that is neither in the conventions
//! nor in our registry fails, as one that is missing does.
//!
//! Sources: [spans](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/) and
//! [metrics](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/), with what they add for Kafka and RabbitMQ.

mod attributes;
mod metric;
mod metrics;
mod sampling;
mod span;

#[cfg(test)]
mod registry_tests;
#[cfg(test)]
mod tests;

use opentelemetry::Value;

pub(super) use metric::check_metric;
pub(super) use sampling::{SeenAtStart, Watching};
pub(super) use span::{Surroundings, check_span};

/// Attributes whose names begin so are the tables' business, whoever sets them on a span of this library.
const NAMESPACES: [&str; 6] = ["messaging.", "traced_broker.", "job.", "server.", "network.", "error."];

/// An operation that a span is about, as one bit of a set.
type Operations = u8;

/// A message gets its creation context.
const CREATE: Operations = 1;
/// A message goes out with the span's own context.
const SEND: Operations = 1 << 1;
/// Messages go out that have contexts already.
const TRANSFER: Operations = 1 << 2;
/// A call returns messages.
const RECEIVE: Operations = 1 << 3;
/// A handler works on messages.
const PROCESS: Operations = 1 << 4;
/// The broker is told what became of messages.
const SETTLE: Operations = 1 << 5;
/// All that are about messages.
const ALL: Operations = CREATE | SEND | TRANSFER | RECEIVE | PROCESS | SETTLE;
/// Background work, which is about no message.
const JOB: Operations = 1 << 6;
/// Those of consumers.
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

    /// The name in a registry file.
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

/// What a metric is measured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instrument {
    Histogram,
    Counter,
}

/// A metric, and what it is made of.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    instrument: Instrument,
    unit: &'static str,
    /// The boundaries of a histogram's buckets.
    buckets: &'static [f64],
    /// The attributes that its points may have, and whether they must.
    attributes: &'static [(&'static str, bool)],
    /// It is in our own registry and not in the conventions.
    #[cfg_attr(not(test), expect(dead_code, reason = "the registry is compared by tests"))]
    ours: bool,
}
