//! The spans exported while a case ran, with queries and checks.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Value;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceId};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;

use super::failure::{Checked, Failure, check, check_eq};

/// The exporter that keeps the spans of one case. A span that is not exported to it does not exist
/// for the case.
#[derive(Debug, Clone, Default)]
pub struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().extend(batch);
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Spans {
    pub(super) fn all(&self) -> Vec<SpanData> {
        self.0.lock().clone()
    }

    /// Returns the spans of that name, ordered by start time.
    pub(super) fn named(&self, name: &str) -> Vec<SpanData> {
        let mut spans: Vec<SpanData> = self.all().into_iter().filter(|span| span.name == name).collect();
        spans.sort_by_key(|span| span.start_time);
        spans
    }

    /// Returns the only span of that name.
    #[track_caller]
    pub(super) fn one(&self, name: &str) -> Checked<SpanData> {
        let mut spans = self.named(name);
        match (spans.pop(), spans.len()) {
            (Some(span), 0) => Ok(span),
            (_, more) => {
                let names: Vec<String> = self.all().iter().map(|span| span.name.to_string()).collect();
                Err(Failure::new(format!("one span named {name}: there are {}, among {names:?}", more + 1)))
            }
        }
    }

    /// Checks that every parent and every link of every exported span is an exported span.
    pub(super) fn check_everything_resolves(&self) -> Checked {
        let spans = self.all();
        let known: HashSet<(TraceId, SpanId)> = spans.iter().map(|span| place(&span.span_context)).collect();
        for span in &spans {
            let parent = (span.span_context.trace_id(), span.parent_span_id);
            check!(is_root(span) || known.contains(&parent), "the parent of {} is exported", span.name);
            for link in span.links.iter() {
                check!(known.contains(&place(&link.span_context)), "each span that {} links is exported", span.name);
            }
        }
        Ok(())
    }
}

/// Returns the trace id and the span id, which identify a span.
fn place(span: &SpanContext) -> (TraceId, SpanId) {
    (span.trace_id(), span.span_id())
}

pub(super) fn is_root(span: &SpanData) -> bool {
    span.parent_span_id == SpanId::INVALID
}

/// Returns `true` if the span is linked to that context.
pub(super) fn is_linked(span: &SpanData, to: &SpanContext) -> bool {
    span.links.iter().any(|link| place(&link.span_context) == place(to))
}

pub(super) fn attribute<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| &pair.value)
}

/// Returns the attribute as text, or an empty text if it is missing.
pub(super) fn attribute_text(span: &SpanData, key: &str) -> String {
    attribute(span, key).map(|value| value.as_str().into_owned()).unwrap_or_default()
}

pub(super) fn check_linked(span: &SpanData, to: &SpanContext) -> Checked {
    check!(is_linked(span, to), "{} is linked to the creation context", span.name);
    Ok(())
}

/// Checks that the span is a child of the other, in the same trace.
pub(super) fn check_child(span: &SpanData, of: &SpanContext) -> Checked {
    let seen = (span.span_context.trace_id(), span.parent_span_id);
    check_eq!(seen, place(of), "the trace and the parent of {}", span.name);
    Ok(())
}

/// Checks that the span begins a trace that contains none of the others.
pub(super) fn check_begins_a_trace<'a>(span: &SpanData, others: impl IntoIterator<Item = &'a SpanContext>) -> Checked {
    check_eq!(span.parent_span_id, SpanId::INVALID, "the parent of {}", span.name);
    for other in others {
        let shared = span.span_context.trace_id() == other.trace_id();
        check!(!shared, "{} begins a trace of its own", span.name);
    }
    Ok(())
}

/// Checks that the span has this `error.type`, and an error status that contains `words`.
pub(super) fn check_failed(span: &SpanData, error_type: &str, words: &str) -> Checked {
    check_eq!(attribute_text(span, "error.type"), error_type, "the error.type of {}", span.name);
    let Status::Error { description } = &span.status else {
        return Err(Failure::new(format!("{} has failed: its status is {:?}", span.name, span.status)));
    };
    check!(description.contains(words), "the status of {} says {words:?}: {description}", span.name);
    Ok(())
}

/// Checks that the span has neither an `error.type` nor a status, which means success.
pub(super) fn check_succeeded(span: &SpanData) -> Checked {
    let seen = (attribute_text(span, "error.type"), &span.status);
    check_eq!(seen, (String::new(), &Status::Unset), "the error.type and the status of {}", span.name);
    Ok(())
}

pub(super) fn check_kind(span: &SpanData, kind: SpanKind) -> Checked {
    check_eq!(span.span_kind, kind, "the kind of {}", span.name);
    Ok(())
}
