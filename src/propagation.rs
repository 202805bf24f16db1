//! How spans of different services are tied together.

use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt};

use crate::carrier::{HeaderExtractor, HeaderInjector};
use crate::headers::Headers;
use crate::w3c::{self, W3cPropagator};

/// How the process span of a delivery relates to the context that the message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TracePolicy {
    /// The process span is a child of the creation context and linked to it: one trace from the producer to the last
    /// consumer. The semantic conventions permit this for single messages, and keep the link.
    #[default]
    Parent,
    /// The process span starts a trace of its own, linked to the creation context: for work long after the fact and for producers that are not trusted.
    Link,
    /// The carried context is not used.
    Ignore,
}

/// Reads and writes the context of a message: the library's own W3C codec, or the propagator the user set.
#[derive(Debug, Clone)]
pub(crate) struct Propagation {
    custom: Option<Arc<dyn TextMapPropagator + Send + Sync>>,
    /// Every header that may carry context and is replaced when a message is published anew.
    fields: Arc<[String]>,
}

impl Propagation {
    /// Trace context and baggage of the W3C, strictly.
    pub(crate) fn w3c() -> Self {
        Self { custom: None, fields: fields_of(&W3cPropagator::new()).collect() }
    }

    /// The user's propagator. The W3C headers are still removed from republished messages: stale ones must not travel beside the user's.
    pub(crate) fn custom(propagator: Arc<dyn TextMapPropagator + Send + Sync>) -> Self {
        let fields = fields_of(&W3cPropagator::new()).chain(fields_of(&*propagator)).collect();
        Self { custom: Some(propagator), fields }
    }

    /// Replaces whatever context the headers hold by that of `span`, which was started under `context`; or of
    /// `context` itself where no span could be made.
    pub(crate) fn inject(&self, span: Option<&SpanContext>, context: &Context, headers: &mut Headers) {
        if !headers.is_empty() {
            for field in self.fields.iter() {
                headers.remove(field);
            }
        }
        match &self.custom {
            Some(propagator) => {
                let made = span.map(|span| context.with_remote_span_context(span.clone()));
                propagator.inject_context(made.as_ref().unwrap_or(context), &mut HeaderInjector::new(headers));
            }
            None => {
                let current = context.span();
                let span = span.unwrap_or(current.span_context());
                w3c::encode_span(span, context, |name, value| headers.append(name, value));
            }
        }
    }

    /// The creation context that the headers carry, read onto an empty context and never onto the current one.
    pub(crate) fn extract(&self, headers: &Headers) -> Context {
        let empty = Context::new();
        match &self.custom {
            Some(propagator) => propagator.extract_with_context(&empty, &HeaderExtractor::new(headers)),
            None => {
                let [parent, state, baggage] =
                    [w3c::TRACEPARENT, w3c::TRACESTATE, w3c::BAGGAGE].map(|name| headers.get_all(name));
                w3c::decode_all(parent, state, baggage, &empty).context
            }
        }
    }
}

fn fields_of(propagator: &dyn TextMapPropagator) -> impl Iterator<Item = String> {
    propagator.fields().map(str::to_owned)
}
