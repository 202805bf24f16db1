//! Writes a context into the headers of a message.

use crate::names::header;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanContext, TraceContextExt};

use super::beside::Beside;
use super::malformed::Issues;
use super::traceparent::TraceParent;
use crate::context::w3c::{baggage, tracestate};

/// Writes the headers for a context: calls `emit` with each lower-case name and value.
///
/// `traceparent` and `tracestate` come from the span of the context, sampled or not. An unsampled
/// span is passed on with its flag cleared, so that the receiver does not start a new trace.
/// `baggage` comes from the context's baggage. Empty headers are not written. Therefore remove all
/// three from a carrier that may contain older ones before writing to it.
///
/// Returns the parts that could not be written.
///
/// ```
/// use opentelemetry::{Context, KeyValue, baggage::BaggageExt};
/// use traced_broker::{Headers, w3c};
///
/// // No span, so no `traceparent`; and a value that is too long once it is encoded.
/// let baggage = vec![KeyValue::new("user", "amelie"), KeyValue::new("note", "é".repeat(2000))];
/// let context = Context::new().with_baggage(baggage);
/// let mut headers = Headers::new();
/// let issues = w3c::encode_context(&context, |name, value| headers.append(name, value));
/// assert_eq!(headers.iter().collect::<Vec<_>>(), [("baggage", &b"user=amelie"[..])]);
/// assert_eq!(issues.baggage_dropped, 1);
/// ```
///
/// # Allocations
/// None for a `traceparent` alone.
pub fn encode_context(context: &Context, emit: impl FnMut(&'static str, &[u8])) -> Issues {
    encode_span(context.span().span_context(), context, emit)
}

/// Writes the headers for a span that was started under the context, as [`encode_context`] does for
/// the context's own span.
///
/// Saves creating a context that contains the span.
pub fn encode_span(span: &SpanContext, context: &Context, mut emit: impl FnMut(&'static str, &[u8])) -> Issues {
    let mut issues = Issues::default();
    if let Ok(parent) = TraceParent::from_span_context(span) {
        let beside = Beside::find(context, span);
        let is_random = beside.is_some_and(Beside::is_random);
        let parent = if is_random { parent.with_random() } else { parent };
        emit(header::TRACEPARENT, &parent.encode());
        issues.tracestate_dropped = encode_tracestate(span, beside, &mut emit);
    }
    if !context.baggage().is_empty() {
        let list = baggage::encode(context.baggage());
        issues.baggage_dropped = list.dropped;
        if !list.text.is_empty() {
            emit(header::BAGGAGE, list.text.as_bytes());
        }
    }
    issues
}

/// Writes the list, and returns the number of members that could not be written.
fn encode_tracestate(span: &SpanContext, beside: Option<&Beside>, emit: &mut impl FnMut(&'static str, &[u8])) -> usize {
    if let Some(text) = beside.and_then(|beside| beside.tracestate(span)) {
        emit(header::TRACESTATE, text.as_bytes());
        return 0;
    }
    if span.trace_state().into_iter().next().is_none() {
        return 0;
    }
    let list = tracestate::encode(span.trace_state());
    if !list.text.is_empty() {
        emit(header::TRACESTATE, list.text.as_bytes());
    }
    list.dropped
}
