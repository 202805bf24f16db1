//! One operation under way, from its beginning to its measurement.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::Span;

use super::{Instruments, Metrics};

/// When an operation began, and where its duration goes. There is none where nothing measures: then the spans read the clock alone.
pub(crate) struct Timing {
    pub(crate) started: SystemTime,
    pub(crate) instruments: Arc<Instruments>,
}

impl Timing {
    /// An operation that begins now.
    pub(crate) fn start(metrics: &Metrics) -> Option<Self> {
        metrics.instruments().map(|instruments| Self { started: SystemTime::now(), instruments })
    }

    /// The end of an operation that ends now, not before its beginning even if the clock was set back, and its duration.
    pub(crate) fn end(&self) -> (SystemTime, Duration) {
        let now = SystemTime::now();
        match now.duration_since(self.started) {
            Ok(duration) => (now, duration),
            Err(_) => (self.started, Duration::ZERO),
        }
    }
}

/// Ends a span at the time that was measured, if it was.
pub(crate) fn end_span(span: &mut impl Span, end: Option<SystemTime>) {
    match end {
        Some(end) => span.end_with_timestamp(end),
        None => span.end(),
    }
}
