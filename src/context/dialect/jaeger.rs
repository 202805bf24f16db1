//! Jaeger: `uber-trace-id: {trace-id}:{span-id}:{parent-span-id}:{flags}`, and a header
//! `uberctx-{key}` for each baggage member.
//!
//! Ids may be shorter than their full length. The parent's id is deprecated and ignored. Bit 0 of
//! the flags is *sampled*. Clients that treat message headers as HTTP headers write `%3A` for each
//! colon.

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use percent_encoding::percent_decode_str;

use super::ids::{self, is_hexadecimal, only};
use crate::headers::{Headers, starts_with};

pub(in crate::context) const TRACE: &str = "uber-trace-id";
pub(in crate::context) const BAGGAGE: &str = "uberctx-";

pub(super) fn read(headers: &Headers) -> Option<Context> {
    let value = only(headers, TRACE)?;
    let context =
        if value.contains('%') { parse(&percent_decode_str(value).decode_utf8().ok()?) } else { parse(value) }?;
    let baggage = baggage(headers.iter());
    Some(if baggage.is_empty() { context } else { context.with_baggage(baggage) })
}

fn parse(value: &str) -> Option<Context> {
    let mut parts = value.split(':');
    let [trace_id, span_id, parent_id, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let lengths_are_right = trace_id.len() <= 32 && span_id.len() <= 16 && parent_id.len() <= 16 && flags.len() <= 2;
    let parent_is_right = parent_id.is_empty() || is_hexadecimal(parent_id);
    if parts.next().is_some() || !lengths_are_right || !parent_is_right || !is_hexadecimal(flags) {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    ids::context(trace_id, span_id, flags & 1 == 1)
}

/// Reads as many members as OpenTelemetry's type accepts; values that are not text, and illegal
/// keys, are left out.
pub(in crate::context) fn baggage<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Baggage {
    let mut baggage = Baggage::new();
    for (name, value) in headers {
        let key = starts_with(name, BAGGAGE).then(|| &name[BAGGAGE.len()..]);
        let value = std::str::from_utf8(value).ok().and_then(|text| percent_decode_str(text).decode_utf8().ok());
        if let (Some(key), Some(value)) = (key, value) {
            baggage.insert(key.to_owned(), value.into_owned());
        }
    }
    baggage
}
