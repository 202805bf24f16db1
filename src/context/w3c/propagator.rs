//! The codec as an OpenTelemetry propagator.

use crate::names::header;
use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};

use crate::context::w3c::{decode_all, encode_context};

/// The propagator of trace and baggage, as the W3C specifications require.
///
/// One propagator for all three headers; [`decode_all`] and [`encode_context`] describe its
/// behaviour. An [`Injector`] cannot remove headers, so a carrier that is used twice may keep a
/// `tracestate` or `baggage` of its first use.
///
/// `extract` starts from the *current* context, as OpenTelemetry defines it, and returns that
/// context if the headers contain no valid one. To read a message, use `extract_with_context` and
/// an empty context.
///
/// ```
/// use std::collections::HashMap;
/// use opentelemetry::{Context, propagation::TextMapPropagator, trace::TraceContextExt};
/// use traced_broker::w3c::W3cPropagator;
///
/// // For everything else in the process, such as an HTTP server:
/// let propagator = W3cPropagator::new();
/// opentelemetry::global::set_text_map_propagator(propagator);
///
/// let mut request = HashMap::from([("traceparent".to_owned(), "00-broken".to_owned())]);
/// let context = propagator.extract_with_context(&Context::new(), &request);
/// assert!(!context.has_active_span());
///
/// let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// request.insert("traceparent".to_owned(), parent.to_owned());
/// let context = propagator.extract_with_context(&Context::new(), &request);
/// let mut sent = HashMap::new();
/// propagator.inject_context(&context, &mut sent);
/// assert_eq!(sent["traceparent"], parent);
/// ```
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
        decode_all(values(header::TRACEPARENT), values(header::TRACESTATE), values(header::BAGGAGE), cx).context
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 3]> =
            LazyLock::new(|| [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE].map(str::to_owned));
        FieldIter::new(&*FIELDS)
    }
}
