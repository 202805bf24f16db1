//! Who wrote a message, as far as it says so itself.

use opentelemetry::baggage::BaggageExt as _;
use traced_broker::Received;
use traced_broker::w3c::TRACESTATE;

use crate::context::Carried;
use crate::probe::MARK;

/// Headers that people name the sender in, the most telling first.
const HINTS: [&str; 17] = [
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

/// The longest name that is kept, in characters.
const LONGEST: usize = 60;

/// A name for the sender, and where it was found.
pub(super) fn of(message: &Received, carried: &Carried) -> Option<String> {
    let headers = message.headers();
    if headers.contains(MARK) {
        return Some(MARK.to_owned());
    }
    let hinted = HINTS.iter().find_map(|hint| headers.get_str(hint));
    let named =
        hinted.map(str::to_owned).or_else(|| carried.context.baggage().get("service.name").map(ToString::to_string));
    let named = named.filter(|name| !name.trim().is_empty());
    named.or_else(|| vendor(headers.get_str(TRACESTATE)?)).map(|name| name.trim().chars().take(LONGEST).collect())
}

/// The tracing system that wrote last: a multi-tenant key names the tenant before the system.
fn vendor(tracestate: &str) -> Option<String> {
    let (key, _) = tracestate.split(',').next()?.split_once('=')?;
    Some(format!("tracestate {}", key.trim()))
}
