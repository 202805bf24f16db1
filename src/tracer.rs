//! Where spans are made and measurements go: a tracer the user set, or the global one, and none at all at no cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use opentelemetry::global::{BoxedSpan, BoxedTracer};
use opentelemetry::metrics::Meter;
use opentelemetry::trace::{Span, SpanBuilder, TraceContextExt, Tracer};
use opentelemetry::{Context, InstrumentationScope, global};
use parking_lot::RwLock;

use crate::metrics::Metrics;
use crate::propagation::{Propagation, TrustBoundary};
use crate::span::SCHEMA_URL;

/// While nothing makes spans, one in so many looks for a global tracer provider again.
const PROBE_EVERY: u32 = 64;

/// What the user said about telemetry.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// In place of the global tracer provider's.
    pub(crate) tracer: Option<Arc<BoxedTracer>>,
    /// In place of the global meter provider's.
    pub(crate) meter: Option<Meter>,
    pub(crate) propagation: Propagation,
    /// What may go out with every message.
    pub(crate) boundary: Option<Arc<TrustBoundary>>,
    pub(crate) settle_spans: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tracer: None, meter: None, propagation: Propagation::w3c(), boundary: None, settle_spans: false }
    }
}

/// Makes spans, measures and moves contexts; shared by all that one broker publishes and consumes.
#[derive(Debug)]
pub(crate) struct Telemetry {
    tracer: RwLock<Option<Arc<BoxedTracer>>>,
    is_global: bool,
    /// Spans skipped since the tracer was found to make none; 0 while it makes some.
    idle: AtomicU32,
    pub(crate) metrics: Metrics,
    pub(crate) settings: Settings,
}

impl Telemetry {
    /// Spans go to the tracer that was set, or to the global provider as it is set when the first span is made.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            tracer: RwLock::new(settings.tracer.clone()),
            is_global: settings.tracer.is_none(),
            idle: AtomicU32::new(0),
            metrics: Metrics::new(settings.meter.as_ref()),
            settings,
        }
    }

    /// The instrumentation scope of every span of this library.
    pub(crate) fn scope() -> InstrumentationScope {
        InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(SCHEMA_URL)
            .build()
    }

    /// Starts a span, or none where no SDK is installed; `describe` is called only if there may be one.
    pub(crate) fn start(&self, parent: &Context, describe: impl FnOnce() -> SpanBuilder) -> Option<BoxedSpan> {
        if self.is_idle() {
            return None;
        }
        let tracer = self.tracer.read();
        let Some(tracer) = tracer.as_ref() else {
            drop(tracer);
            *self.tracer.write() = Some(Arc::new(global::tracer_with_scope(Self::scope())));
            return self.start(parent, describe);
        };
        let span = tracer.build_with_context(describe(), parent);
        if is_placeholder(&span, parent) {
            self.idle.store(1, Ordering::Relaxed);
            return None;
        }
        Some(span)
    }

    /// Whether the tracer makes no spans. From time to time it is asked again, and the global one is looked up anew.
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

/// Whether the span is what OpenTelemetry returns where there is no SDK, or one that was shut down: no identity but the parent's.
fn is_placeholder(span: &BoxedSpan, parent: &Context) -> bool {
    let own = span.span_context();
    !own.is_valid() && !parent.is_telemetry_suppressed() || own.is_valid() && own == parent.span().span_context()
}
