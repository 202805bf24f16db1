//! MassTransit: a header, or the same among the headers of its JSON envelope where the transport has none.

use opentelemetry::Context;
use serde::Deserialize;

use super::{json, renamed};
use crate::headers::Headers;
use crate::message::CONTENT_TYPE;

/// `System.Diagnostics.Activity.Id`, as Wolverine's.
const ACTIVITY_ID: &str = "mt-activity-id";

/// The media type of the envelope.
const ENVELOPE: &str = "application/vnd.masstransit+json";

pub(super) fn read(headers: &Headers, payload: Option<&[u8]>) -> Option<Context> {
    renamed::under(headers, ACTIVITY_ID, None).or_else(|| enveloped(headers, payload))
}

fn enveloped(headers: &Headers, payload: Option<&[u8]>) -> Option<Context> {
    let content_type = headers.get_str(CONTENT_TYPE)?.trim();
    if !content_type.get(..ENVELOPE.len())?.eq_ignore_ascii_case(ENVELOPE) {
        return None;
    }
    let envelope: Envelope = json::parse(payload?)?;
    json::context([&envelope.headers.activity_id, &None, &None])
}

#[derive(Deserialize)]
struct Envelope {
    headers: EnvelopeHeaders,
}

#[derive(Deserialize)]
struct EnvelopeHeaders {
    #[serde(rename = "MT-Activity-Id")]
    activity_id: Option<String>,
}
