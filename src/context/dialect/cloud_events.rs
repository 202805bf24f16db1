//! CloudEvents: attributes as headers (binary mode) or as members of a JSON object (structured
//! mode).
//!
//! Protocol bindings use different prefixes for attribute names: Kafka `ce_`, HTTP, NATS and Pulsar
//! `ce-`, AMQP `cloudEvents:`, or `cloudEvents_` if JMS may read it. Baggage is not an attribute of
//! the extension; producers that write it use the same prefix.

use crate::names::header;
use opentelemetry::Context;
use serde::Deserialize;

use super::json;
use super::renamed::valid;
use crate::context::w3c;
use crate::headers::Headers;

/// The names of parent, list and baggage for each binding.
pub(super) const BINDINGS: [[&str; 3]; 4] = [
    ["ce-traceparent", "ce-tracestate", "ce-baggage"],
    ["ce_traceparent", "ce_tracestate", "ce_baggage"],
    ["cloudEvents:traceparent", "cloudEvents:tracestate", "cloudEvents:baggage"],
    ["cloudEvents_traceparent", "cloudEvents_tracestate", "cloudEvents_baggage"],
];

pub(super) fn read(headers: &Headers, payload: Option<&[u8]>) -> Option<Context> {
    BINDINGS.into_iter().find_map(|names| binary(headers, names)).or_else(|| structured(headers, payload))
}

fn binary(headers: &Headers, names: [&'static str; 3]) -> Option<Context> {
    let [parent, state, baggage] = names.map(|name| headers.get_all(name));
    valid(w3c::decode_all(parent, state, baggage, &Context::new()).context)
}

/// Reads structured mode. Brokers without a binding, and many producers, set no content type; then
/// the body alone decides.
fn structured(headers: &Headers, payload: Option<&[u8]>) -> Option<Context> {
    let may_be = headers.get(header::CONTENT_TYPE).is_none_or(json::is_media_type);
    Event::parse(payload.filter(|_| may_be)?)?.context()
}

/// The relevant members of an event. `specversion` is mandatory in every event.
#[derive(Deserialize)]
pub(super) struct Event {
    #[serde(rename = "specversion")]
    _version: String,
    traceparent: Option<String>,
    tracestate: Option<String>,
    baggage: Option<String>,
    /// The member of older Dapr runtimes.
    pub(super) traceid: Option<String>,
}

impl Event {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        json::parse(text)
    }

    pub(super) fn context(&self) -> Option<Context> {
        let Self { traceparent, tracestate, baggage, .. } = self;
        json::context([traceparent, tracestate, baggage])
    }
}
