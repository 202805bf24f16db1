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
    /// The tracer of the global provider, once it was looked up.
    global: RwLock<Option<Arc<BoxedTracer>>>,
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
            global: RwLock::default(),
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
        let looked_up;
        let tracer = match &self.settings.tracer {
            Some(given) => given,
            None => {
                looked_up = self.global_tracer();
                &looked_up
            }
        };
        let span = tracer.build_with_context(describe(), parent);
        if is_placeholder(&span, parent) {
            self.idle.store(1, Ordering::Relaxed);
            return None;
        }
        Some(span)
    }

    /// Returns the tracer of the global provider. No lock is held while it is used: samplers and
    /// span processors are code of the application, which may publish.
    fn global_tracer(&self) -> Arc<BoxedTracer> {
        if let Some(known) = &*self.global.read() {
            return Arc::clone(known);
        }
        Arc::clone(self.global.write().get_or_insert_with(|| Arc::new(global::tracer_with_scope(scope()))))
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
        *self.global.write() = None;
        false
    }
}

/// Returns `true` for the span that OpenTelemetry returns without an SDK, or after its shutdown: it
/// has no identity except that of the parent.
fn is_placeholder(span: &BoxedSpan, parent: &Context) -> bool {
    let own = span.span_context();
    !own.is_valid() && !parent.is_telemetry_suppressed() || own.is_valid() && own == parent.span().span_context()
}

#[cfg(test)]
mod tests {
    use std::sync::{OnceLock, Weak};

    use opentelemetry::KeyValue;
    use opentelemetry::trace::{Link, SpanKind, TraceId, TracerProvider};
    use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample};

    use super::*;

    /// A sampler that notes if it could look up another tracer, as one that publishes may have to.
    #[derive(Debug, Clone, Default)]
    struct Looking {
        telemetry: Arc<OnceLock<Weak<Telemetry>>>,
        could: Arc<OnceLock<bool>>,
    }

    impl ShouldSample for Looking {
        fn should_sample(
            &self,
            _: Option<&Context>,
            _: TraceId,
            _: &str,
            _: &SpanKind,
            _: &[KeyValue],
            _: &[Link],
        ) -> SamplingResult {
            let telemetry = self.telemetry.get().and_then(Weak::upgrade);
            self.could.get_or_init(|| telemetry.is_some_and(|telemetry| telemetry.global.try_write().is_some()));
            let trace_state = Default::default();
            SamplingResult { decision: SamplingDecision::Drop, attributes: Vec::new(), trace_state }
        }
    }

    #[test]
    fn no_lock_is_held_while_a_span_is_made() {
        let looking = Looking::default();
        let provider = SdkTracerProvider::builder().with_sampler(looking.clone()).build();
        let telemetry = Arc::new(Telemetry::new(Settings::default()));
        let tracer = BoxedTracer::new(Box::new(provider.tracer_with_scope(scope())));
        *telemetry.global.write() = Some(Arc::new(tracer));
        looking.telemetry.set(Arc::downgrade(&telemetry)).unwrap();
        drop(telemetry.start(&Context::new(), || SpanBuilder::from_name("send orders")));
        assert_eq!(looking.could.get(), Some(&true));
    }
}
