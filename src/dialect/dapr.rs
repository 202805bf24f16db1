//! Dapr: a CloudEvent as the payload, on Redis Streams in the field `data`, there with a field `metadata` beside it.
//!
//! The metadata is a JSON object of strings, which an application that publishes raw payloads may give a `traceparent`. The event has
//! the attribute `traceparent`; of older runtimes `traceid`, with the same value.

use opentelemetry::Context;

use super::cloud_events::Event;
use super::json::{self, Members};
use crate::headers::Headers;

pub(super) fn read(headers: &Headers, payload: Option<&[u8]>) -> Option<Context> {
    event(headers.get("data").or(payload)).or_else(|| metadata(headers.get("metadata")))
}

fn event(text: Option<&[u8]>) -> Option<Context> {
    let event = Event::parse(text?)?;
    event.context().or_else(|| json::context([&event.traceid, &None, &None]))
}

fn metadata(text: Option<&[u8]>) -> Option<Context> {
    json::parse::<Members>(text?)?.context()
}
