//! Minimal propagators from outside this library, as applications may configure them: Zipkin's B3
//! and Jaeger's.

use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

/// B3: the ids and the sampling decision in one header, or in one header each.
#[derive(Debug, Clone, Copy)]
pub(super) enum B3 {
    One,
    Several,
}

const ONE: &str = "b3";
const TRACE_ID: &str = "X-B3-TraceId";
const SPAN_ID: &str = "X-B3-SpanId";
const SAMPLED: &str = "X-B3-Sampled";
const DEBUG: &str = "X-B3-Flags";

impl TextMapPropagator for B3 {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        let span = context.span().span_context().clone();
        if !span.is_valid() {
            return;
        }
        let (trace, id, sampled) = (span.trace_id(), span.span_id(), u8::from(span.is_sampled()));
        match self {
            Self::One => injector.set(ONE, format!("{trace}-{id}-{sampled}")),
            Self::Several => {
                injector.set(TRACE_ID, trace.to_string());
                injector.set(SPAN_ID, id.to_string());
                injector.set(SAMPLED, sampled.to_string());
            }
        }
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        let span = match self {
            Self::One => extractor.get(ONE).and_then(|value| {
                let mut parts = value.split('-');
                remote(parts.next()?, parts.next()?, matches!(parts.next(), Some("1" | "d")))
            }),
            Self::Several => {
                let sampled = matches!(extractor.get(SAMPLED), Some("1" | "true")) || extractor.get(DEBUG) == Some("1");
                let ids = extractor.get(TRACE_ID).zip(extractor.get(SPAN_ID));
                ids.and_then(|(trace, span)| remote(trace, span, sampled))
            }
        };
        span.map_or_else(|| context.clone(), |span| context.with_remote_span_context(span))
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 5]> =
            LazyLock::new(|| [ONE, TRACE_ID, SPAN_ID, SAMPLED, DEBUG].map(str::to_owned));
        match self {
            Self::One => FieldIter::new(&FIELDS[..1]),
            Self::Several => FieldIter::new(&FIELDS[1..]),
        }
    }
}

/// Jaeger's native header: trace, span, a parent that is no longer read, and flags.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jaeger;

const UBER: &str = "uber-trace-id";

impl TextMapPropagator for Jaeger {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        let span = context.span().span_context().clone();
        if span.is_valid() {
            let flags = u8::from(span.is_sampled());
            injector.set(UBER, format!("{}:{}:0:{flags}", span.trace_id(), span.span_id()));
        }
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        let span = extractor.get(UBER).and_then(|value| {
            let mut parts = value.split(':');
            let (trace, span, _, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            remote(trace, span, u8::from_str_radix(flags, 16).ok()? & 1 == 1)
        });
        span.map_or_else(|| context.clone(), |span| context.with_remote_span_context(span))
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| [UBER.to_owned()]);
        FieldIter::new(&*FIELDS)
    }
}

/// Creates a remote span context if both ids are valid; both may lack leading zeros.
fn remote(trace: &str, span: &str, sampled: bool) -> Option<SpanContext> {
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    Some(SpanContext::new(trace, span, flags, true, TraceState::default())).filter(SpanContext::is_valid)
}
