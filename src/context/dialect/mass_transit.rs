//! MassTransit: a header, or the same header in its JSON envelope on transports without headers.

use crate::names::header;
use opentelemetry::Context;
use serde::Deserialize;

use crate::context::dialect::{json, renamed};
use crate::headers::Headers;

/// `System.Diagnostics.Activity.Id`, as in Wolverine.
pub(super) const ACTIVITY_ID: &str = "mt-activity-id";

/// The media type of the envelope.
const ENVELOPE: &str = "application/vnd.masstransit+json";

pub(super) fn read(headers: &Headers, payload: Option<&[u8]>) -> Option<Context> {
    renamed::under(headers, ACTIVITY_ID, None).or_else(|| enveloped(headers, payload))
}

fn enveloped(headers: &Headers, payload: Option<&[u8]>) -> Option<Context> {
    let content_type = headers.get_str(header::CONTENT_TYPE)?.trim();
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
