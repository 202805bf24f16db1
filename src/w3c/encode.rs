//! From a context to the headers of a message.

use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanContext, TraceContextExt};

use super::beside::Beside;
use super::malformed::Issues;
use super::traceparent::TraceParent;
use super::{BAGGAGE, TRACEPARENT, TRACESTATE, baggage, tracestate};

/// Writes the headers for a context, handing each to `emit` as its name in lower case and its value.
///
/// `traceparent` and `tracestate` come from the span of the context, sampled or not: an unsampled one is passed on
/// with its flag cleared, lest the receiver start a trace of its own. `baggage` comes from the context's baggage.
/// No header is ever empty: one that would be is not written. Hence remove all three from a carrier that may hold
/// older ones, before writing to it.
///
/// Returns what could not be written.
///
/// # Allocations
/// None for a `traceparent` alone.
pub fn encode_context(context: &Context, emit: impl FnMut(&'static str, &[u8])) -> Issues {
    encode_span(context.span().span_context(), context, emit)
}

/// Writes the headers for a span that is not the context's own but was started under it, as [`encode_context`] does.
///
/// Saves the context that would have to be made to hold the span.
pub fn encode_span(span: &SpanContext, context: &Context, mut emit: impl FnMut(&'static str, &[u8])) -> Issues {
    let mut issues = Issues::default();
    if let Ok(parent) = TraceParent::from_span_context(span) {
        let beside = Beside::find(context, span);
        let is_random = beside.is_some_and(Beside::is_random);
        let parent = if is_random { parent.with_random() } else { parent };
        emit(TRACEPARENT, &parent.encode());
        issues.tracestate_dropped = encode_tracestate(span, beside, &mut emit);
    }
    if !context.baggage().is_empty() {
        let list = baggage::encode(context.baggage());
        issues.baggage_dropped = list.dropped;
        if !list.text.is_empty() {
            emit(BAGGAGE, list.text.as_bytes());
        }
    }
    issues
}

/// Writes the list, and returns how many of its members could not be written.
fn encode_tracestate(span: &SpanContext, beside: Option<&Beside>, emit: &mut impl FnMut(&'static str, &[u8])) -> usize {
    if let Some(text) = beside.and_then(|beside| beside.tracestate(span)) {
        emit(TRACESTATE, text.as_bytes());
        return 0;
    }
    if span.trace_state().into_iter().next().is_none() {
        return 0;
    }
    let list = tracestate::encode(span.trace_state());
    if !list.text.is_empty() {
        emit(TRACESTATE, list.text.as_bytes());
    }
    list.dropped
}
