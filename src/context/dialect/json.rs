//! JSON envelopes: only the few relevant members are kept, all others are skipped.

use opentelemetry::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::MAX_ENVELOPE;
use super::renamed::valid;
use crate::context::w3c;

/// Reads an object. Returns `None` for any other value, for an object that is too large, and for a
/// member that occurs twice or has another type.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    // Without the check, an array would be accepted: its elements would be taken for the members,
    // in order.
    let is_object = text.trim_ascii_start().starts_with(b"{");
    if !is_object || text.len() > MAX_ENVELOPE {
        return None;
    }
    serde_json::from_slice(text).ok()
}

/// The values of the W3C headers, as members of an object.
#[derive(Deserialize)]
pub(super) struct Members {
    traceparent: Option<String>,
    tracestate: Option<String>,
    baggage: Option<String>,
}

impl Members {
    pub(super) fn context(&self) -> Option<Context> {
        let Self { traceparent, tracestate, baggage } = self;
        context([traceparent, tracestate, baggage])
    }
}

/// Returns the context that a parent, a list and baggage form.
pub(super) fn context(values: [&Option<String>; 3]) -> Option<Context> {
    let [parent, state, baggage] = values.map(|value| value.as_deref().map(str::as_bytes));
    valid(w3c::decode(parent, state, baggage, &Context::new()).context)
}

/// Returns `true` if a content type denotes JSON.
pub(super) fn is_media_type(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let start = essence.len().saturating_sub("json".len());
    let (lead, end) = essence.split_at(start);
    end.eq_ignore_ascii_case(b"json") && matches!(lead.last(), Some(b'/' | b'+'))
}
