//! Samples, and the contexts read from them.

use std::collections::BTreeMap;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::TraceContextExt;
use traced_broker::{Dialect, Headers};

pub(crate) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(crate) const SPAN: &str = "00f067aa0ba902b7";
pub(crate) const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
pub(crate) const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// The contents of a context.
#[derive(Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) trace: String,
    pub(crate) span: String,
    pub(crate) sampled: bool,
    pub(crate) state: String,
    pub(crate) baggage: BTreeMap<String, String>,
}

/// Returns a sampled span of the usual trace, without state or baggage.
pub(crate) fn usual() -> Said {
    Said {
        trace: TRACE.to_owned(),
        span: SPAN.to_owned(),
        sampled: true,
        state: String::new(),
        baggage: BTreeMap::new(),
    }
}

pub(crate) fn unsampled() -> Said {
    Said { sampled: false, ..usual() }
}

pub(crate) fn with_state(state: &str) -> Said {
    Said { state: state.to_owned(), ..usual() }
}

pub(crate) fn members(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn read(dialect: Dialect, headers: &Headers, payload: Option<&[u8]>) -> Option<Said> {
    let context = dialect.read(headers, payload)?;
    let span = context.span().span_context().clone();
    assert!(span.is_remote() && span.is_valid(), "a valid remote span, or nothing");
    let baggage = context.baggage().iter().map(|(key, (value, _))| (key.to_string(), value.to_string()));
    Some(Said {
        trace: span.trace_id().to_string(),
        span: span.span_id().to_string(),
        sampled: span.is_sampled(),
        state: span.trace_state().header(),
        baggage: baggage.collect(),
    })
}

/// Reads text headers.
pub(crate) fn of(dialect: Dialect, pairs: &[(&str, &str)]) -> Option<Said> {
    read(dialect, &pairs.iter().copied().collect(), None)
}

/// Reads an entry of Redis Streams, whose fields are headers, except `payload`.
pub(crate) fn of_entry(dialect: Dialect, fields: &[(&str, &[u8])]) -> Option<Said> {
    let payload = fields.iter().find(|(name, _)| *name == "payload").map_or(&b""[..], |(_, value)| value);
    let headers = fields.iter().filter(|(name, _)| *name != "payload").copied().collect();
    read(dialect, &headers, Some(payload))
}
