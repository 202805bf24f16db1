//! B3 and Jaeger as propagators: their [dialects](super::dialect) read them, and this module writes
//! them.

use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::dialect::Dialect;
use super::dialect::b3::{FLAGS, SAMPLED, SINGLE, SPAN_ID, TRACE_ID};
use super::dialect::jaeger::{self, BAGGAGE, TRACE as UBER};
use crate::headers::{Headers, starts_with};

/// Everything but the unreserved characters of RFC 3986: readers decode as for a form, or as for a
/// URI, and both leave these alone.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const PARENT: &str = "x-b3-parentspanid";

/// The B3 propagator, which reads both forms and writes one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum B3 {
    /// `b3: {trace}-{span}-{sampled}`.
    Single,
    /// `x-b3-traceid` and the other separate headers.
    Multi,
}

impl TextMapPropagator for B3 {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        let Some(span) = valid(context) else { return };
        let (trace, id, sampled) = (span.trace_id(), span.span_id(), u8::from(span.is_sampled()));
        match self {
            Self::Single => injector.set(SINGLE, format!("{trace}-{id}-{sampled}")),
            Self::Multi => {
                injector.set(TRACE_ID, trace.to_string());
                injector.set(SPAN_ID, id.to_string());
                injector.set(SAMPLED, sampled.to_string());
            }
        }
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        read(Dialect::B3, self.fields(), context, extractor)
    }

    /// Returns the fields of both forms, because each must remove those that the other may have
    /// left.
    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 6]> =
            LazyLock::new(|| [SINGLE, TRACE_ID, SPAN_ID, SAMPLED, FLAGS, PARENT].map(str::to_owned));
        FieldIter::new(&*FIELDS)
    }
}

/// The Jaeger propagator: `uber-trace-id: {trace}:{span}:{parent}:{flags}`, and `uberctx-{key}` for
/// each member of the baggage, as the OpenTelemetry libraries for Java and Node write them. The
/// parent is deprecated and written as 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jaeger;

impl TextMapPropagator for Jaeger {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        if let Some(span) = valid(context) {
            let flags = u8::from(span.is_sampled());
            injector.set(UBER, format!("{}:{}:0:{flags}", span.trace_id(), span.span_id()));
        }
        for (key, (value, _)) in context.baggage() {
            let value = utf8_percent_encode(value.as_str(), ENCODED);
            injector.set(&format!("{BAGGAGE}{key}"), value.to_string());
        }
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        let context = read(Dialect::Jaeger, self.fields(), context, extractor);
        let members = extractor.keys().into_iter().filter(|name| starts_with(name, BAGGAGE));
        let members = members.filter_map(|name| Some((name, extractor.get(name)?.as_bytes())));
        let baggage = jaeger::baggage(members);
        if baggage.is_empty() { context } else { context.with_baggage(baggage) }
    }

    /// Returns the header of the trace, and the beginning of those of the baggage.
    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 2]> = LazyLock::new(|| [UBER, BAGGAGE].map(str::to_owned));
        FieldIter::new(&*FIELDS)
    }
}

fn valid(context: &Context) -> Option<SpanContext> {
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// Returns the context with the span that the fields name, if they name one.
fn read(dialect: Dialect, fields: FieldIter<'_>, context: &Context, extractor: &dyn Extractor) -> Context {
    let mut headers = Headers::new();
    for field in fields {
        for value in extractor.get_all(field).into_iter().flatten() {
            headers.append(field, value);
        }
    }
    match dialect.read(&headers, None) {
        Some(found) => context.with_remote_span_context(found.span().span_context().clone()),
        None => context.clone(),
    }
}
