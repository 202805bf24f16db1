//! Creates spans and records metrics through the configured or the global provider; costs nothing
//! without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use opentelemetry::global::{BoxedSpan, BoxedTracer};
use opentelemetry::metrics::Meter;
use opentelemetry::trace::{Span, SpanBuilder, TraceContextExt, Tracer};
use opentelemetry::{Context, global};
use parking_lot::RwLock;

use super::metrics::Metrics;
use super::scope::scope;
use crate::context::propagation::{Propagation, TrustBoundary};

/// Interval, in spans, at which a global tracer provider is looked up again while there is none.
const PROBE_EVERY: u32 = 64;

/// The telemetry settings of a broker handle.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The tracer that replaces that of the global provider.
    pub(crate) tracer: Option<Arc<BoxedTracer>>,
    /// The meter that replaces that of the global provider.
    pub(crate) meter: Option<Meter>,
    pub(crate) propagation: Propagation,
    /// The boundary for the context of every published message.
    pub(crate) boundary: Option<Arc<TrustBoundary>>,
    pub(crate) settle_spans: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tracer: None, meter: None, propagation: Propagation::w3c(), boundary: None, settle_spans: false }
    }
}

/// The tracer, the metrics and the settings that all operations of one broker handle share.
#[derive(Debug)]
pub(crate) struct Telemetry {
    tracer: RwLock<Option<Arc<BoxedTracer>>>,
    is_global: bool,
    /// Number of spans skipped since the tracer was found to create none; 0 while it creates spans.
    idle: AtomicU32,
    pub(crate) metrics: Metrics,
    pub(crate) settings: Settings,
}

impl Telemetry {
    /// Uses the configured tracer, or the global provider that is set when the first span is
    /// created.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            tracer: RwLock::new(settings.tracer.clone()),
            is_global: settings.tracer.is_none(),
            idle: AtomicU32::new(0),
            metrics: Metrics::new(settings.meter.as_ref()),
            settings,
        }
    }

    /// Starts a span; `None` if no SDK is installed. `describe` is called only if there may be one.
    pub(crate) fn start(&self, parent: &Context, describe: impl FnOnce() -> SpanBuilder) -> Option<BoxedSpan> {
        if self.is_idle() {
            return None;
        }
        let tracer = self.tracer.read();
        let Some(tracer) = tracer.as_ref() else {
            drop(tracer);
            *self.tracer.write() = Some(Arc::new(global::tracer_with_scope(scope())));
            return self.start(parent, describe);
        };
        let span = tracer.build_with_context(describe(), parent);
        if is_placeholder(&span, parent) {
            self.idle.store(1, Ordering::Relaxed);
            return None;
        }
        Some(span)
    }

    /// Returns `true` if the tracer creates no spans. Once per [`PROBE_EVERY`] spans it is tried
    /// again, and the global tracer is looked up anew.
    fn is_idle(&self) -> bool {
        let skipped = self.idle.load(Ordering::Relaxed);
        if skipped == 0 {
            return false;
        }
        if skipped < PROBE_EVERY {
            self.idle.store(skipped + 1, Ordering::Relaxed);
            return true;
        }
        self.idle.store(0, Ordering::Relaxed);
        if self.is_global {
            *self.tracer.write() = None;
        }
        false
    }
}

/// Returns `true` for the span that OpenTelemetry returns without an SDK, or after its shutdown: it
/// has no identity except that of the parent.
fn is_placeholder(span: &BoxedSpan, parent: &Context) -> bool {
    let own = span.span_context();
    !own.is_valid() && !parent.is_telemetry_suppressed() || own.is_valid() && own == parent.span().span_context()
}
