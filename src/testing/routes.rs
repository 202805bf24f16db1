//! From the global tracer provider, which a process has one of, to the captures of tests that run beside each other.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Once, Weak};

use opentelemetry::global::{self, BoxedSpan, BoxedTracer, GlobalTracerProvider};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use parking_lot::Mutex;

use super::capture::Capture;
use super::spans::Spans;
use crate::exported;
use crate::verify::TraceId;

/// The service of spans from global tracers that nothing says more about: what the resource conventions call it.
const UNKNOWN: &str = "unknown_service";

/// Whose a trace is. An entry is gone with its capture.
static TRACES: LazyLock<Mutex<HashMap<TraceId, Weak<Spans>>>> = LazyLock::new(Mutex::default);

/// In a context: the capture that its roots belong to.
#[derive(Debug)]
pub(super) struct Route(pub(super) Capture);

/// Installs the router as global provider, once for the process.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let elsewhere = global::tracer_provider();
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        let nowhere = SdkTracerProvider::builder().with_sampler(sampler).build();
        global::set_tracer_provider(Router { elsewhere, nowhere });
    });
}

/// Makes the trace that of `spans`, unless it is another living capture's: of two with one trace id, the first has it.
pub(super) fn claim(trace: TraceId, spans: &Arc<Spans>) {
    let mut traces = TRACES.lock();
    let owner = traces.entry(trace).or_default();
    if owner.strong_count() == 0 {
        *owner = Arc::downgrade(spans);
    }
}

/// Forgets the traces of captures that are gone.
pub(super) fn forget_the_dead() {
    TRACES.lock().retain(|_, spans| spans.strong_count() > 0);
}

/// Hands every span to the capture whose trace it belongs to.
#[derive(Debug)]
struct Router {
    /// What was the global provider before.
    elsewhere: GlobalTracerProvider,
    /// Where that makes no spans: makes some that nobody keeps, not sampled unless their parent is, so that a trace that belongs
    /// to no capture is missing as a whole and never in part.
    nowhere: SdkTracerProvider,
}

impl TracerProvider for Router {
    type Tracer = RoutingTracer;

    fn tracer_with_scope(&self, scope: InstrumentationScope) -> RoutingTracer {
        let nowhere = BoxedTracer::new(Box::new(self.nowhere.tracer_with_scope(scope.clone())));
        RoutingTracer { elsewhere: self.elsewhere.tracer_with_scope(scope.clone()), nowhere, scope }
    }
}

/// A tracer of the global provider.
#[derive(Debug)]
struct RoutingTracer {
    scope: InstrumentationScope,
    elsewhere: BoxedTracer,
    nowhere: BoxedTracer,
}

impl Tracer for RoutingTracer {
    type Span = BoxedSpan;

    fn build_with_context(&self, builder: SpanBuilder, parent: &Context) -> BoxedSpan {
        let Some(capture) = capture_of(&builder, parent) else {
            let span = self.elsewhere.build_with_context(builder.clone(), parent);
            let own = span.span_context();
            let is_placeholder = !own.is_valid() || own == parent.span().span_context();
            return if is_placeholder { self.nowhere.build_with_context(builder, parent) } else { span };
        };
        let provider = capture.provider(&service(&capture, &builder, parent));
        let tracer = BoxedTracer::new(Box::new(provider.tracer_with_scope(self.scope.clone())));
        tracer.build_with_context(builder, parent)
    }
}

/// A trace stays together; a new one belongs to the capture of its context, else to that of a trace it links.
fn capture_of(builder: &SpanBuilder, parent: &Context) -> Option<Capture> {
    let of_trace = |context: &SpanContext| {
        let owner = TRACES.lock().get(&exported::reference(context).trace_id).and_then(Weak::upgrade);
        owner.map(Capture)
    };
    let linked = || builder.links.iter().flatten().find_map(|link| of_trace(&link.span_context));
    let routed = || parent.get::<Route>().map(|route| route.0.clone());
    of_trace(parent.span().span_context()).or_else(routed).or_else(linked)
}

/// What is done in a span of a service is done by that service, unless the span's kind says that it comes from outside.
fn service(capture: &Capture, builder: &SpanBuilder, parent: &Context) -> Arc<str> {
    let from_outside = matches!(builder.span_kind, Some(SpanKind::Server | SpanKind::Consumer));
    let parent = exported::reference(parent.span().span_context());
    let inherited = (!from_outside).then(|| capture.0.service_of(parent)).flatten();
    inherited.unwrap_or_else(|| Arc::from(UNKNOWN))
}
