//! Hexadecimal ids, as headers other than the W3C's contain them.

use opentelemetry::Context;
use opentelemetry::trace::{SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

use crate::context::w3c::TraceParent;
use crate::headers::Headers;

/// Returns the text on which all headers of that name agree, without white space around it.
pub(super) fn only<'a>(headers: &'a Headers, name: &'static str) -> Option<&'a str> {
    let first = headers.get(name)?;
    if headers.get_all(name).any(|other| other != first) {
        return None;
    }
    Some(std::str::from_utf8(first).ok()?.trim_matches([' ', '\t']))
}

/// Returns the context of a remote span. A shorter id is padded with leading zeroes; an id of only
/// zeroes is invalid.
pub(super) fn context(trace_id: &str, span_id: &str, sampled: bool) -> Option<Context> {
    if !is_hexadecimal(trace_id) || !is_hexadecimal(span_id) {
        return None;
    }
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace_id, span_id) = (TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(span_id).ok()?);
    let parent = TraceParent::new(trace_id, span_id, flags).ok()?;
    Some(Context::new().with_remote_span_context(parent.to_span_context(TraceState::default())))
}

/// Returns `true` if the text consists only of lower-case hexadecimal digits, without a sign.
pub(super) fn is_hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
