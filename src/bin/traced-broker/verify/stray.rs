//! The search for process spans that began a new trace because the context of their message was
//! lost.

use std::time::SystemTime;

use serde::Deserialize;
use traced_broker::verify::{Span, Traces, answer};

use super::backend::Backend;
use super::broken::{SpanSummary, Stray, leads_to};

/// Maximum number of services that are searched, to limit the time.
const MAX_SERVICES: usize = 32;
/// Maximum number of traces of each service.
const MAX_TRACES: &str = "50";

/// Jaeger's list of services.
#[derive(Deserialize)]
struct Services {
    data: Option<Vec<String>>,
}

/// Searches the backend for spans that may have processed the message of `send` in a new trace.
///
/// Returns `None` if the backend cannot be searched.
pub(super) async fn find(backend: &Backend, send: &Span) -> Option<Vec<Stray>> {
    let services: Services = serde_json::from_slice(&backend.search("api/services", &[]).await?).ok()?;
    let mut services = services.data.unwrap_or_default();
    services.truncate(MAX_SERVICES);
    let operation = format!("process {}", send.destination());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (start, end) = ((send.start / 1_000).to_string(), now.as_micros().to_string());
    let mut strays = Vec::new();
    for service in &services {
        let range = [("start", &*start), ("end", &*end), ("limit", MAX_TRACES)];
        let query = [&[("service", &**service), ("operation", &*operation)][..], &range].concat();
        let found = answer::jaeger(&backend.search("api/traces", &query).await?).ok()?;
        strays.extend(candidates(&found, send));
    }
    Some(strays)
}

/// Returns the process spans that may belong to this message and have neither a parent nor links.
fn candidates<'a>(traces: &'a Traces, send: &'a Span) -> impl Iterator<Item = Stray> + 'a {
    let spans = traces.iter().filter(|trace| trace.id() != send.trace_id).flat_map(|trace| trace.spans());
    let alone = spans.filter(|span| span.is_processing() && span.parent.is_none() && span.links.is_empty());
    let matching = alone.filter(|span| {
        leads_to(send, span.destination()) && span.start >= send.start && may_be_same_message(send, span)
    });
    matching.map(|span| Stray { trace: span.trace_id, span: SpanSummary::new(span) })
}

/// Returns `false` if both spans have a message id and the ids differ.
fn may_be_same_message(send: &Span, process: &Span) -> bool {
    const ID: &str = "messaging.message.id";
    match (send.attributes.text(ID), process.attributes.text(ID)) {
        (Some(sent), Some(processed)) => sent == processed,
        _ => true,
    }
}
