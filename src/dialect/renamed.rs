//! The W3C's values under other names, or in other places.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

use crate::headers::Headers;
use crate::w3c::{self, BAGGAGE, TRACEPARENT, TRACESTATE};

/// `System.Diagnostics.Activity.Id`, which is a `traceparent` unless the program chose the older, hierarchical form.
const WOLVERINE: &str = "parent-id";

/// The first letter overwritten in place, so that the server's own tracing does not take it up.
const NATS_SERVER: &str = "xraceparent";

/// "traceparent must match Diagnostic-Id" where both are there; so the one is as good as the other.
const AZURE: &str = "diagnostic-id";

pub(super) fn wolverine(headers: &Headers) -> Option<Context> {
    under(headers, WOLVERINE, None)
}

/// Only the one header is renamed: the `tracestate` beside it belongs to it.
pub(super) fn nats_server(headers: &Headers) -> Option<Context> {
    under(headers, NATS_SERVER, Some(TRACESTATE))
}

/// The `tracestate` of the Azure SDKs belongs to the `traceparent` that they write beside it.
pub(super) fn azure(headers: &Headers) -> Option<Context> {
    under(headers, AZURE, None)
}

/// The parent under one name, with the list under another.
pub(super) fn under<'a>(headers: &'a Headers, parent: &'a str, state: Option<&'a str>) -> Option<Context> {
    // Most messages have none, and are asked for one all the same.
    headers.get(parent)?;
    let state = state.into_iter().flat_map(|name| headers.get_all(name));
    valid(w3c::decode_all(headers.get_all(parent), state, [], &Context::new()).context)
}

/// The context, if it has a parent.
pub(super) fn valid(context: Context) -> Option<Context> {
    context.has_active_span().then_some(context)
}

/// The W3C's headers that were found in an envelope.
#[derive(Default)]
pub(super) struct Found(Headers);

impl Found {
    /// Keeps a pair of the envelope if it is one of them, in any case.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) {
        let name =
            [TRACEPARENT, TRACESTATE, BAGGAGE].into_iter().find(|name| name.as_bytes().eq_ignore_ascii_case(key));
        if let Some(name) = name {
            self.0.append(name, value);
        }
    }

    pub(super) fn context(&self) -> Option<Context> {
        let [parent, state, baggage] = [TRACEPARENT, TRACESTATE, BAGGAGE].map(|name| self.0.get_all(name));
        valid(w3c::decode_all(parent, state, baggage, &Context::new()).context)
    }
}
