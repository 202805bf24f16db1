//! The W3C values under other names, or in other places.

use crate::names::header;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

use crate::context::w3c::{self};
use crate::headers::Headers;

/// `System.Diagnostics.Activity.Id`, which is a `traceparent` unless the program chose the older,
/// hierarchical form.
pub(super) const WOLVERINE: &str = "parent-id";

/// The name with its first letter overwritten in place, which hides it from the server's own
/// tracing.
pub(super) const NATS_SERVER: &str = "xraceparent";

/// "traceparent must match Diagnostic-Id" if both are present, so either may be used.
pub(super) const AZURE: &str = "diagnostic-id";

pub(super) fn wolverine(headers: &Headers) -> Option<Context> {
    under(headers, WOLVERINE, None)
}

/// Only this header is renamed: the `tracestate` next to it belongs to it.
pub(super) fn nats_server(headers: &Headers) -> Option<Context> {
    under(headers, NATS_SERVER, Some(header::TRACESTATE))
}

/// The `tracestate` of the Azure SDKs belongs to the `traceparent` that they write next to it.
pub(super) fn azure(headers: &Headers) -> Option<Context> {
    under(headers, AZURE, None)
}

/// Reads the parent under one name and the list under another.
pub(super) fn under<'a>(headers: &'a Headers, parent: &'a str, state: Option<&'a str>) -> Option<Context> {
    // Fast path: most messages have no such header.
    headers.get(parent)?;
    let state = state.into_iter().flat_map(|name| headers.get_all(name));
    valid(w3c::decode_all(headers.get_all(parent), state, [], &Context::new()).context)
}

/// Returns the context if it has a parent.
pub(super) fn valid(context: Context) -> Option<Context> {
    context.has_active_span().then_some(context)
}

/// The W3C headers that were found in an envelope.
#[derive(Default)]
pub(super) struct Found(Headers);

impl Found {
    /// Keeps a pair of the envelope if it is one of these headers, in any case.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) {
        let name = [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE]
            .into_iter()
            .find(|name| name.as_bytes().eq_ignore_ascii_case(key));
        if let Some(name) = name {
            self.0.append(name, value);
        }
    }

    pub(super) fn context(&self) -> Option<Context> {
        let [parent, state, baggage] =
            [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE].map(|name| self.0.get_all(name));
        valid(w3c::decode_all(parent, state, baggage, &Context::new()).context)
    }
}
