//! Routing from the global tracer provider, of which a process has one, to the captures of
//! concurrent tests.

use std::sync::{Arc, Once};

use opentelemetry::global::{self, BoxedSpan, BoxedTracer, GlobalTracerProvider};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

use super::spans::{Spans, owner_of};
use crate::testing::exported;

/// The service of spans from global tracers without a known service, as the resource conventions
/// name it.
const UNKNOWN: &str = "unknown_service";

/// The capture of the root spans started in a context.
#[derive(Debug)]
pub(super) struct Route(pub(super) Arc<Spans>);

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

/// A provider that hands every span to the capture of its trace.
#[derive(Debug)]
struct Router {
    /// The previous global provider.
    elsewhere: GlobalTracerProvider,
    /// Creates discarded spans if `elsewhere` creates none. They are unsampled unless their parent
    /// is sampled, so a trace that belongs to no capture is missing as a whole and never in part.
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

/// Returns the capture of a span. A trace stays together; a new one belongs to the capture of its
/// context, otherwise to that of a trace it links to.
fn capture_of(builder: &SpanBuilder, parent: &Context) -> Option<Arc<Spans>> {
    let of_trace = |context: &SpanContext| owner_of(exported::reference(context).trace_id);
    let linked = || builder.links.iter().flatten().find_map(|link| of_trace(&link.span_context));
    let routed = || parent.get::<Route>().map(|route| Arc::clone(&route.0));
    of_trace(parent.span().span_context()).or_else(routed).or_else(linked)
}

/// Returns the service of a span: that of its parent, unless the span's kind says that it comes
/// from outside.
fn service(spans: &Spans, builder: &SpanBuilder, parent: &Context) -> Arc<str> {
    let from_outside = matches!(builder.span_kind, Some(SpanKind::Server | SpanKind::Consumer));
    let parent = exported::reference(parent.span().span_context());
    let inherited = (!from_outside).then(|| spans.service_of(parent)).flatten();
    inherited.unwrap_or_else(|| Arc::from(UNKNOWN))
}
