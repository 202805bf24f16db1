//! Dapr: a CloudEvent as the payload. On Redis Streams, the event is in the field `data`, with a
//! field `metadata` next to it.
//!
//! The metadata is a JSON object of strings; an application that publishes raw payloads may add a
//! `traceparent` to it. The event has the attribute `traceparent`, or `traceid` with the same value
//! from older runtimes.

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
