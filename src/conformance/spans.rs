//! What was exported while a case ran, and questions about it.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Value;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;

use super::failure::{Checked, Failure, check, check_eq};

/// An exporter that keeps the spans of one case.
#[derive(Debug, Clone, Default)]
pub(super) struct Spans(Arc<Mutex<Vec<SpanData>>>);

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

    /// Those of that name, in the order in which they started.
    pub(super) fn named(&self, name: &str) -> Vec<SpanData> {
        let mut spans: Vec<SpanData> = self.all().into_iter().filter(|span| span.name == name).collect();
        spans.sort_by_key(|span| span.start_time);
        spans
    }

    /// The only one of that name.
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

    /// Every parent and every link of every exported span is an exported span.
    pub(super) fn check_everything_resolves(&self) -> Checked {
        let spans = self.all();
        let known: Vec<SpanId> = spans.iter().map(|span| span.span_context.span_id()).collect();
        for span in &spans {
            let parent = span.parent_span_id;
            check!(parent == SpanId::INVALID || known.contains(&parent), "the parent of {} is exported", span.name);
            for link in span.links.iter() {
                check!(known.contains(&link.span_context.span_id()), "what {} links is exported", span.name);
            }
        }
        Ok(())
    }
}

pub(super) fn attribute<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| &pair.value)
}

/// The attribute as text, empty when it is not there.
pub(super) fn attribute_text(span: &SpanData, key: &str) -> String {
    attribute(span, key).map(|value| value.as_str().into_owned()).unwrap_or_default()
}

pub(super) fn check_linked(span: &SpanData, to: &SpanContext) -> Checked {
    let linked = span.links.iter().any(|link| link.span_context.span_id() == to.span_id());
    check!(linked, "{} is linked to the creation context", span.name);
    Ok(())
}

pub(super) fn check_kind(span: &SpanData, kind: SpanKind) -> Checked {
    check_eq!(span.span_kind, kind, "the kind of {}", span.name);
    Ok(())
}
