//! The codec as an OpenTelemetry propagator.

use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};

use super::{BAGGAGE, TRACEPARENT, TRACESTATE, decode_all, encode_context};

/// Propagates the trace and the baggage as the W3C specifications demand.
///
/// One propagator for all three headers; [`decode_all`] and [`encode_context`] say what it does. It keeps to what
/// it can know: an [`Injector`] cannot remove anything, so a carrier used twice may keep a `tracestate` or
/// `baggage` of its first use.
///
/// `extract` starts from the *current* context, as OpenTelemetry defines it, and returns that when the headers hold
/// nothing valid. To read a message, use `extract_with_context` and an empty context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct W3cPropagator;

impl W3cPropagator {
    /// Creates the propagator.
    pub const fn new() -> Self {
        Self
    }
}

impl TextMapPropagator for W3cPropagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        encode_context(cx, |name, value| {
            if let Ok(value) = str::from_utf8(value) {
                injector.set(name, value.to_owned());
            }
        });
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        let values = |name| extractor.get_all(name).into_iter().flatten().map(str::as_bytes);
        decode_all(values(TRACEPARENT), values(TRACESTATE), values(BAGGAGE), cx).context
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 3]> = LazyLock::new(|| [TRACEPARENT, TRACESTATE, BAGGAGE].map(str::to_owned));
        FieldIter::new(&*FIELDS)
    }
}
