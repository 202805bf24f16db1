//! Where a message went whose processing is not in the trace: into a trace of its own, if its context was lost on the way.

use std::time::SystemTime;

use serde::Deserialize;
use traced_broker::verify::{Span, TraceId, Traces, answer};

use super::backend::Backend;
use super::diagnosis::{Place, leads_to};

/// The most services that are asked for. Nobody waits for more.
const MOST_SERVICES: usize = 32;
/// The most traces of each that are looked at.
const MOST_TRACES: &str = "50";

/// What was processed in a trace that it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stray {
    pub(super) trace: TraceId,
    pub(super) place: Place,
}

/// What Jaeger answers when it is asked for its services.
#[derive(Deserialize)]
struct Services {
    data: Option<Vec<String>>,
}

/// What took the message of `send` out of its queue and began a trace of its own: `None` where that cannot be asked, empty where there
/// is nothing of the kind.
pub(super) async fn look(backend: &Backend, send: &Span) -> Option<Vec<Stray>> {
    let services: Services = serde_json::from_slice(&backend.search("api/services", &[]).await?).ok()?;
    let mut services = services.data.unwrap_or_default();
    services.truncate(MOST_SERVICES);
    let operation = format!("process {}", send.destination());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (start, end) = ((send.start / 1_000).to_string(), now.as_micros().to_string());
    let mut strays = Vec::new();
    for service in &services {
        let range = [("start", &*start), ("end", &*end), ("limit", MOST_TRACES)];
        let query = [&[("service", &**service), ("operation", &*operation)][..], &range].concat();
        let found = answer::jaeger(&backend.search("api/traces", &query).await?).ok()?;
        strays.extend(began(&found, send));
    }
    Some(strays)
}

/// The spans that processed what may be this message, without knowing who sent it. A span that links its sender did know.
fn began<'a>(traces: &'a Traces, send: &'a Span) -> impl Iterator<Item = Stray> + 'a {
    let spans = traces.iter().filter(|trace| trace.id() != send.trace_id).flat_map(|trace| trace.spans());
    let alone = spans.filter(|span| span.is_processing() && span.parent.is_none() && span.links.is_empty());
    let of_it =
        alone.filter(|span| leads_to(send, span.destination()) && span.start >= send.start && may_be(send, span));
    of_it.map(|span| Stray { trace: span.trace_id, place: Place::of(span) })
}

/// Whether both can be of one message: not when both say which it is and do not agree.
fn may_be(send: &Span, process: &Span) -> bool {
    const ID: &str = "messaging.message.id";
    match (send.attributes.text(ID), process.attributes.text(ID)) {
        (Some(sent), Some(processed)) => sent == processed,
        _ => true,
    }
}
