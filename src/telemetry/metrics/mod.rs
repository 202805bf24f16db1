//! Measurements: the instruments, created once, and the meter behind them. The metrics themselves
//! are listed in [`names::metric`](crate::names::metric).

mod attributes;
mod timing;

use crate::names::metric;
use crate::telemetry::scope::scope;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use opentelemetry::global;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};
use parking_lot::RwLock;

pub(crate) use attributes::{MetricAttributes, with};
pub(crate) use timing::{Timing, end_span};

/// Interval, in measurements, at which a global meter provider is looked up again while there is
/// none.
const PROBE_EVERY: u32 = 64;

/// The instruments, created once.
pub(crate) struct Instruments {
    pub(crate) operation_duration: Histogram<f64>,
    pub(crate) process_duration: Histogram<f64>,
    pub(crate) sent: Counter<u64>,
    pub(crate) consumed: Counter<u64>,
    pub(crate) queue_duration: Histogram<f64>,
    pub(crate) wait_duration: Histogram<f64>,
    pub(crate) skewed: Counter<u64>,
    pub(crate) rejected: Counter<u64>,
    pub(crate) discarded: Counter<u64>,
    pub(crate) unroutable: Counter<u64>,
    pub(crate) waiting: UpDownCounter<i64>,
}

impl Instruments {
    pub(crate) fn new(meter: &Meter) -> Self {
        let histogram = |metric: metric::Metric| {
            let boundaries = metric.buckets.to_vec();
            let builder = meter.f64_histogram(metric.name).with_unit(metric.unit);
            builder.with_description(metric.description).with_boundaries(boundaries).build()
        };
        let counter = |metric: metric::Metric| {
            meter.u64_counter(metric.name).with_unit(metric.unit).with_description(metric.description).build()
        };
        Self {
            operation_duration: histogram(metric::OPERATION_DURATION),
            process_duration: histogram(metric::PROCESS_DURATION),
            sent: counter(metric::SENT_MESSAGES),
            consumed: counter(metric::CONSUMED_MESSAGES),
            queue_duration: histogram(metric::QUEUE_DURATION),
            wait_duration: histogram(metric::WAIT_DURATION),
            skewed: counter(metric::QUEUE_SKEWED),
            rejected: counter(metric::CONTEXT_REJECTED),
            discarded: counter(metric::DISCARDED),
            unroutable: counter(metric::UNROUTABLE),
            waiting: {
                let metric::Metric { name, unit, description, .. } = metric::WAITING;
                meter.i64_up_down_counter(name).with_unit(unit).with_description(description).build()
            },
        }
    }
}

/// The instruments of the configured meter or of the global one. Costs nothing without one.
pub(crate) struct Metrics {
    instruments: RwLock<Option<Arc<Instruments>>>,
    is_global: bool,
    /// Number of measurements skipped since no provider was found; 0 while there is one.
    idle: AtomicU32,
}

impl Metrics {
    /// Uses the given meter, or the global provider that is set at the first measurement.
    pub(crate) fn new(given: Option<&Meter>) -> Self {
        let instruments = given.map(Instruments::new).map(Arc::new);
        // The first measurement looks for a provider at once.
        let idle = AtomicU32::new(if given.is_some() { 0 } else { PROBE_EVERY });
        Self { is_global: given.is_none(), instruments: RwLock::new(instruments), idle }
    }

    /// Returns the instruments; `None` if there is no provider.
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
        // Without an SDK, OpenTelemetry returns a provider of size 0.
        if size_of_val(&*provider) == 0 {
            self.idle.store(1, Ordering::Relaxed);
            return None;
        }
        let made = Arc::new(Instruments::new(&provider.meter_with_scope(scope())));
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
