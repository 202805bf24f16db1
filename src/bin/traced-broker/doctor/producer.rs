//! The producer of a message, according to its headers.

use opentelemetry::baggage::BaggageExt as _;
use traced_broker::Received;
use traced_broker::names::header;

use crate::context::CarriedContext;
use crate::probe::MARK;

/// Headers that commonly name the producer, the most specific first.
const NAME_HEADERS: [&str; 17] = [
    "service.name",
    "service-name",
    "service",
    "x-service-name",
    "x-service",
    "producer",
    "x-producer",
    "client-id",
    "client_id",
    "x-client-id",
    "app-id",
    "application",
    "ce-source",
    "ce_source",
    "cloudEvents:source",
    "source",
    "user-agent",
];

/// Maximum length of a name in characters; longer names are cut.
const MAX_NAME: usize = 60;

/// Returns the name of the producer, if the message has one.
pub(super) fn of(message: &Received, carried: &CarriedContext) -> Option<String> {
    let headers = message.headers();
    if headers.contains(MARK) {
        return Some(MARK.to_owned());
    }
    let hinted = NAME_HEADERS.iter().find_map(|name| headers.get_str(name));
    let named =
        hinted.map(str::to_owned).or_else(|| carried.context.baggage().get("service.name").map(ToString::to_string));
    let named = named.filter(|name| !name.trim().is_empty());
    named
        .or_else(|| vendor(headers.get_str(header::TRACESTATE)?))
        .map(|name| name.trim().chars().take(MAX_NAME).collect())
}

/// Returns the first `tracestate` key, which belongs to the tracing system that wrote last.
fn vendor(tracestate: &str) -> Option<String> {
    let (key, _) = tracestate.split(',').next()?.split_once('=')?;
    Some(format!("tracestate {}", key.trim()))
}
