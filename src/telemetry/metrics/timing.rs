//! The timing of one operation, from its start to its measurement.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::Span;

use crate::telemetry::metrics::{Instruments, Metrics};

/// The start of an operation, and the instruments for its duration. Absent if nothing is measured:
/// then only the spans read the clock.
pub(crate) struct Timing {
    pub(crate) started: SystemTime,
    pub(crate) instruments: Arc<Instruments>,
}

impl Timing {
    /// Starts to time an operation; `None` if nothing is measured.
    pub(crate) fn start(metrics: &Metrics) -> Option<Self> {
        metrics.instruments().map(|instruments| Self { started: SystemTime::now(), instruments })
    }

    /// Returns the end of an operation that ends now, and its duration. The end is never before the
    /// start, even if the clock was set back.
    pub(crate) fn end(&self) -> (SystemTime, Duration) {
        let now = SystemTime::now();
        match now.duration_since(self.started) {
            Ok(duration) => (now, duration),
            Err(_) => (self.started, Duration::ZERO),
        }
    }
}

/// Ends a span at the measured time, if there is one.
pub(crate) fn end_span(span: &mut impl Span, end: Option<SystemTime>) {
    match end {
        Some(end) => span.end_with_timestamp(end),
        None => span.end(),
    }
}
