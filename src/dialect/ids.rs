//! Ids in hexadecimal, as headers other than the W3C's hold them.

use opentelemetry::Context;
use opentelemetry::trace::{SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

use crate::headers::Headers;
use crate::w3c::TraceParent;

/// The text that all headers of that name agree on, without white space around it.
pub(super) fn only<'a>(headers: &'a Headers, name: &'static str) -> Option<&'a str> {
    let first = headers.get(name)?;
    if headers.get_all(name).any(|other| other != first) {
        return None;
    }
    Some(std::str::from_utf8(first).ok()?.trim_matches([' ', '\t']))
}

/// The context of a remote span. A shorter id is one with zeroes in front; one that is all zeroes is none.
pub(super) fn context(trace_id: &str, span_id: &str, sampled: bool) -> Option<Context> {
    if !is_hexadecimal(trace_id) || !is_hexadecimal(span_id) {
        return None;
    }
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace_id, span_id) = (TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(span_id).ok()?);
    let parent = TraceParent::new(trace_id, span_id, flags).ok()?;
    Some(Context::new().with_remote_span_context(parent.to_span_context(TraceState::default())))
}

/// Whether it is lower-case digits and nothing else, no sign for instance.
pub(super) fn is_hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
