//! CloudEvents: attributes as headers (binary mode) or as members of a JSON object (structured mode).
//!
//! Protocol bindings differ in what they put before an attribute's name: Kafka `ce_`, HTTP, NATS and Pulsar `ce-`, AMQP `cloudEvents:`, or
//! `cloudEvents_` where JMS may read it. Baggage is no attribute of the extension; those that write it use the same prefix.

use opentelemetry::Context;
use serde::Deserialize;

use super::json;
use super::renamed::valid;
use crate::headers::Headers;
use crate::message::CONTENT_TYPE;
use crate::w3c;

/// Per binding the names of parent, list and baggage.
const BINDINGS: [[&str; 3]; 4] = [
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

/// Brokers without a binding, and many a producer, name no content type: then the body has to speak for itself.
fn structured(headers: &Headers, payload: Option<&[u8]>) -> Option<Context> {
    let may_be = headers.get(CONTENT_TYPE).is_none_or(json::is_media_type);
    Event::parse(payload.filter(|_| may_be)?)?.context()
}

/// The members of an event that matter here. `specversion` is one that every event has.
#[derive(Deserialize)]
pub(super) struct Event {
    #[serde(rename = "specversion")]
    _version: String,
    traceparent: Option<String>,
    tracestate: Option<String>,
    baggage: Option<String>,
    /// Dapr's.
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
