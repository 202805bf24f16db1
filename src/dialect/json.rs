//! JSON envelopes: only the few members that matter are kept, the rest is stepped over.

use opentelemetry::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::MAX_ENVELOPE;
use super::renamed::valid;
use crate::w3c;

/// Reads an object. `None` for what is not one, is too large, or has a member twice or of another type.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    // Without the check an array would do as well: its elements would be taken for the members, in order.
    let is_object = text.trim_ascii_start().starts_with(b"{");
    if !is_object || text.len() > MAX_ENVELOPE {
        return None;
    }
    serde_json::from_slice(text).ok()
}

/// The values of the W3C's headers, as members of an object.
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

/// The context that a parent, a list and baggage make.
pub(super) fn context(values: [&Option<String>; 3]) -> Option<Context> {
    let [parent, state, baggage] = values.map(|value| value.as_deref().map(str::as_bytes));
    valid(w3c::decode(parent, state, baggage, &Context::new()).context)
}

/// Whether a content type says JSON.
pub(super) fn is_media_type(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let start = essence.len().saturating_sub("json".len());
    let (lead, end) = essence.split_at(start);
    end.eq_ignore_ascii_case(b"json") && matches!(lead.last(), Some(b'/' | b'+'))
}
