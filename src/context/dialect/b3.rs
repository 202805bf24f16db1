//! B3: `b3`, or `X-B3-TraceId`, `X-B3-SpanId`, `X-B3-Sampled` and `X-B3-Flags`.
//!
//! "The single-header variant takes precedence over the multiple header one when extracting
//! fields."

use opentelemetry::Context;

use super::ids::{self, is_hexadecimal, only};
use crate::headers::Headers;

pub(in crate::context) const SINGLE: &str = "b3";
pub(in crate::context) const TRACE_ID: &str = "x-b3-traceid";
pub(in crate::context) const SPAN_ID: &str = "x-b3-spanid";
pub(in crate::context) const SAMPLED: &str = "x-b3-sampled";
pub(in crate::context) const FLAGS: &str = "x-b3-flags";

/// The names as the specification of B3 spells them, and as the OpenTelemetry library for Java
/// looks for them. Those for Python and Node look for lower case.
pub(in crate::context) const SPELLINGS: [&str; 3] = ["X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled"];

pub(super) fn read(headers: &Headers) -> Option<Context> {
    only(headers, SINGLE).and_then(single).or_else(|| several(headers))
}

/// Parses `{TraceId}-{SpanId}-{SamplingState}-{ParentSpanId}`, of which the last two may be
/// missing. A sampling state alone names no span.
fn single(value: &str) -> Option<Context> {
    let mut parts = value.split('-');
    let (trace_id, span_id) = (parts.next()?, parts.next()?);
    let sampled = match parts.next() {
        None | Some("0") => false,
        Some("1" | "d") => true,
        Some(_) => return None,
    };
    let parent_is_right = parts.next().is_none_or(is_span_id);
    if !parent_is_right || parts.next().is_some() {
        return None;
    }
    context(trace_id, span_id, sampled)
}

/// Reads the multiple headers. The parent's own parent is not needed and is ignored.
fn several(headers: &Headers) -> Option<Context> {
    // Older writers, from before the specification, use `true` and `false`.
    let accepted = match only(headers, SAMPLED) {
        None if headers.contains(SAMPLED) => return None,
        None | Some("0" | "false") => false,
        Some("1" | "true") => true,
        Some(_) => return None,
    };
    let debug = only(headers, FLAGS) == Some("1");
    context(only(headers, TRACE_ID)?, only(headers, SPAN_ID)?, accepted || debug)
}

fn context(trace_id: &str, span_id: &str, sampled: bool) -> Option<Context> {
    if !matches!(trace_id.len(), 16 | 32) || !is_span_id(span_id) {
        return None;
    }
    ids::context(trace_id, span_id, sampled)
}

fn is_span_id(text: &str) -> bool {
    text.len() == 16 && is_hexadecimal(text)
}
