//! Metrics of the messaging conventions, and of what only a library at the queue can know.
//!
//! | name | instrument, unit | what it counts |
//! |---|---|---|
//! | `messaging.client.operation.duration` | histogram, s | each send and each settlement, until the broker answered |
//! | `messaging.process.duration` | histogram, s | each message or batch given to a handler, until it was settled |
//! | `messaging.client.sent.messages` | counter, {message} | each message that was to be sent; failures have an `error.type` |
//! | `messaging.client.consumed.messages` | counter, {message} | each delivery handed to the application |
//! | [`QUEUE_DURATION`] | histogram, s | each delivery with a timestamp: how long it was in the queue |
//! | [`QUEUE_SKEWED`] | counter, {message} | deliveries whose timestamp lies in the future, counted as no time in the queue |
//! | [`CONTEXT_REJECTED`] | counter, {header} | headers whose context was not used |
//!
//! They go to the global meter provider, or to [the one given](crate::Traced::with_meter_provider). Without one nothing is measured.
//! Durations are those of the spans, to the nanosecond.
//! ([Semantic conventions for messaging metrics](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/))

mod attributes;
mod timing;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use opentelemetry::global;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use parking_lot::RwLock;

use crate::span::QUEUE_DURATION;
use crate::tracer::Telemetry;

pub(crate) use attributes::{MetricAttributes, with};
pub(crate) use timing::{Timing, end_span};

/// Counter of deliveries whose timestamp lies in the future: the two clocks disagree. Unit {message}.
pub const QUEUE_SKEWED: &str = "traced_broker.queue.skewed";
/// Counter of headers whose context was not used, with [`CONTEXT_HEADER`] and [`CONTEXT_REASON`]. Unit {header}.
pub const CONTEXT_REJECTED: &str = "traced_broker.context.rejected";
/// Attribute of [`CONTEXT_REJECTED`]: `traceparent`, `tracestate`, `baggage`, or `other` for every other header.
pub const CONTEXT_HEADER: &str = "traced_broker.context.header";
/// Attribute of [`CONTEXT_REJECTED`]: a name of [`Malformed`](crate::w3c::Malformed), `member` for parts of a list that were
/// left out, `unrecognized` for what the user's propagator could not read, `unreadable` for headers that are no headers to this library.
pub const CONTEXT_REASON: &str = "traced_broker.context.reason";

/// Buckets that the conventions advise for durations, in seconds.
pub const DURATION_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Buckets of the time in the queue, in seconds: as for durations, and on to a week, since a queue may wait for its consumer over a week-end.
pub const QUEUE_BUCKETS: [f64; 20] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 600.0, 3_600.0,
    86_400.0, 604_800.0,
];

/// While nothing measures, one in so many messages looks for a global meter provider again.
const PROBE_EVERY: u32 = 64;

/// The instruments, made once.
pub(crate) struct Instruments {
    pub(crate) operation_duration: Histogram<f64>,
    pub(crate) process_duration: Histogram<f64>,
    pub(crate) sent: Counter<u64>,
    pub(crate) consumed: Counter<u64>,
    pub(crate) queue_duration: Histogram<f64>,
    pub(crate) skewed: Counter<u64>,
    pub(crate) rejected: Counter<u64>,
}

impl Instruments {
    pub(crate) fn new(meter: &Meter) -> Self {
        let duration = |name: &'static str, words: &'static str, buckets: &[f64]| {
            meter.f64_histogram(name).with_unit("s").with_description(words).with_boundaries(buckets.to_vec()).build()
        };
        let counter = |name: &'static str, unit: &'static str, words: &'static str| {
            meter.u64_counter(name).with_unit(unit).with_description(words).build()
        };
        Self {
            operation_duration: duration(
                "messaging.client.operation.duration",
                "Duration of messaging operations of the client, from the call to the broker's answer.",
                &DURATION_BUCKETS,
            ),
            process_duration: duration(
                "messaging.process.duration",
                "Duration of processing, from handing out to settlement.",
                &DURATION_BUCKETS,
            ),
            sent: counter(
                "messaging.client.sent.messages",
                "{message}",
                "Messages that were to be sent to the broker.",
            ),
            consumed: counter(
                "messaging.client.consumed.messages",
                "{message}",
                "Messages that were handed to the application.",
            ),
            queue_duration: duration(
                QUEUE_DURATION,
                "Time from a message's timestamp until it was handed out.",
                &QUEUE_BUCKETS,
            ),
            skewed: counter(QUEUE_SKEWED, "{message}", "Messages whose timestamp lies in the future."),
            rejected: counter(CONTEXT_REJECTED, "{header}", "Headers whose trace context or baggage was not used."),
        }
    }
}

/// Where measurements go: to a meter the user gave, or the global one, and nowhere at no cost.
pub(crate) struct Metrics {
    instruments: RwLock<Option<Arc<Instruments>>>,
    is_global: bool,
    /// Measurements skipped since there was found to be no provider; 0 while there is one.
    idle: AtomicU32,
}

impl Metrics {
    /// Measurements go to the meter, or to the global provider as it is set when something is first measured.
    pub(crate) fn new(given: Option<&Meter>) -> Self {
        let instruments = given.map(Instruments::new).map(Arc::new);
        // The first measurement looks at once.
        let idle = AtomicU32::new(if given.is_some() { 0 } else { PROBE_EVERY });
        Self { is_global: given.is_none(), instruments: RwLock::new(instruments), idle }
    }

    /// The instruments, unless nothing measures.
    pub(crate) fn instruments(&self) -> Option<Arc<Instruments>> {
        let skipped = self.idle.load(Ordering::Relaxed);
        if skipped == 0 {
            return self.instruments.read().clone();
        }
        if skipped < PROBE_EVERY {
            self.idle.store(skipped + 1, Ordering::Relaxed);
            return None;
        }
        self.probe()
    }

    fn probe(&self) -> Option<Arc<Instruments>> {
        let provider = global::meter_provider();
        // What OpenTelemetry returns where there is no SDK holds nothing, and so keeps nothing.
        if size_of_val(&*provider) == 0 {
            self.idle.store(1, Ordering::Relaxed);
            return None;
        }
        let made = Arc::new(Instruments::new(&provider.meter_with_scope(Telemetry::scope())));
        *self.instruments.write() = Some(Arc::clone(&made));
        self.idle.store(0, Ordering::Relaxed);
        Some(made)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("is_global", &self.is_global).finish_non_exhaustive()
    }
}
