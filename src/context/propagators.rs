//! B3 and Jaeger as propagators: their [dialects](super::dialect) read them, and this module writes
//! them.

use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt as _};

use super::dialect::Dialect;
use super::dialect::b3::{FLAGS, SAMPLED, SINGLE, SPAN_ID, TRACE_ID};
use super::dialect::jaeger::TRACE as UBER;
use crate::headers::Headers;

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

/// The Jaeger propagator: `uber-trace-id: {trace}:{span}:{parent}:{flags}`. The parent is
/// deprecated and written as 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jaeger;

impl TextMapPropagator for Jaeger {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        let Some(span) = valid(context) else { return };
        let flags = u8::from(span.is_sampled());
        injector.set(UBER, format!("{}:{}:0:{flags}", span.trace_id(), span.span_id()));
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        read(Dialect::Jaeger, self.fields(), context, extractor)
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| [UBER.to_owned()]);
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
