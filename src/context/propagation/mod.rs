//! The relation between spans of different services: the context that a message carries, and its
//! use by the consumer.
//!
//! # Default policies
//! | hop | the process span is | because |
//! |---|---|---|
//! | direct | a child, and linked | users expect one trace from the request to the worker |
//! | [delayed](crate::Message::deliver_at), [scheduled](Hop::Scheduled) | in a new trace, linked | a child hours later stretches the trace, and arrives after a tail sampler has decided |
//! | dead letter | a child, and linked | it is the end of the same trace |
//! | [replay](Hop::Replay) | in a new trace, linked | repeated work was not part of the original trace |
//! | bridge | a child, and linked | a path over two brokers is still one path |
//!
//! [`Subscription::trace_policy`](crate::Subscription::trace_policy) decides for all hops,
//! [`trace_policy_for`](crate::Subscription::trace_policy_for) for one kind of hop,
//! [`Message::trace_policy`](crate::Message::trace_policy) for one message. A [`TrustBoundary`]
//! takes precedence over all of them. The order is: boundary, the subscription's policy, the
//! message's policy, the subscription's policy for the kind of hop, the table above. The sender
//! cannot decide about a replay: for replays the message's policy is ignored.

mod boundary;
mod fields;
mod origin;
mod policy;

use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt};

use crate::context::carrier::{HeaderExtractor, HeaderInjector};
use crate::context::w3c::{self, Issues, W3cPropagator};
use crate::headers::Headers;
use crate::names::header;

pub use boundary::TrustBoundary;
pub(crate) use fields::Fields;
pub(crate) use origin::{Origin, Reception};
pub use policy::{Hop, TracePolicy};

/// The reader and writer of a message's context: the library's own W3C codec, or the propagator
/// that the user set.
#[derive(Debug, Clone)]
pub(crate) struct Propagation {
    custom: Option<Arc<dyn TextMapPropagator + Send + Sync>>,
    fields: Fields,
}

impl Propagation {
    /// Creates the strict codec for W3C trace context and baggage.
    pub(crate) fn w3c() -> Self {
        Self { custom: None, fields: Fields::of(&[&W3cPropagator::new()]) }
    }

    /// Wraps the user's propagator. The W3C headers are still removed from republished messages:
    /// stale ones must not travel next to the user's.
    pub(crate) fn custom(propagator: Arc<dyn TextMapPropagator + Send + Sync>) -> Self {
        let fields = Fields::of(&[&W3cPropagator::new(), &*propagator]);
        Self { custom: Some(propagator), fields }
    }

    /// Returns the headers that may carry context.
    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Replaces any context in the headers with that of `span`, which was started under `context`,
    /// or with `context` itself if no span was made. A boundary releases only a part of it.
    pub(crate) fn inject(
        &self,
        span: Option<&SpanContext>,
        context: &Context,
        boundary: Option<&TrustBoundary>,
        headers: &mut Headers,
    ) {
        self.fields.remove_from(headers);
        if let Some(boundary) = boundary {
            let current = context.span();
            let released = boundary.release(span.unwrap_or(current.span_context()), context);
            return self.write(None, &released, headers);
        }
        self.write(span, context, headers);
    }

    fn write(&self, span: Option<&SpanContext>, context: &Context, headers: &mut Headers) {
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

    /// Reads the creation context from the headers onto an empty context, never onto the current
    /// one.
    pub(crate) fn extract(&self, headers: &Headers) -> Extracted {
        let empty = Context::new();
        if headers.is_empty() {
            return Extracted { context: empty, issues: Issues::default(), unrecognized: false };
        }
        match &self.custom {
            Some(propagator) => {
                let context = propagator.extract_with_context(&empty, &HeaderExtractor::new(headers));
                let is_read = context.span().span_context().is_valid();
                let unrecognized = !is_read && propagator.fields().any(|field| headers.contains(field));
                Extracted { context, issues: Issues::default(), unrecognized }
            }
            None => {
                let names = [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE];
                let first = headers.first_of(names);
                let w3c::Extracted { context, issues, .. } = if first.iter().flatten().all(|first| first.is_only) {
                    let [parent, state, baggage] = first.map(|first| first.map(|first| first.value));
                    w3c::decode(parent, state, baggage, &empty)
                } else {
                    let [parent, state, baggage] = names.map(|name| headers.get_all(name));
                    w3c::decode_all(parent, state, baggage, &empty)
                };
                Extracted { context, issues, unrecognized: false }
            }
        }
    }
}

/// A context that was read from headers, and the issues found.
#[derive(Debug)]
pub(crate) struct Extracted {
    pub(crate) context: Context,
    issues: Issues,
    /// `true` if headers of the user's propagator were present but contained no context.
    unrecognized: bool,
}

impl Extracted {
    /// Calls `visit` with each unused header, the reason, and the number of occurrences.
    pub(crate) fn rejections(&self, mut visit: impl FnMut(&'static str, &'static str, usize)) {
        let Issues { traceparent, tracestate, tracestate_dropped, baggage_dropped, .. } = self.issues;
        if let Some(reason) = traceparent {
            visit(header::TRACEPARENT, reason.as_str(), 1);
        }
        if let Some(reason) = tracestate {
            visit(header::TRACESTATE, reason.as_str(), 1);
        }
        if tracestate_dropped > 0 {
            visit(header::TRACESTATE, "member", tracestate_dropped);
        }
        if baggage_dropped > 0 {
            visit(header::BAGGAGE, "member", baggage_dropped);
        }
        if self.unrecognized {
            visit("other", "unrecognized", 1);
        }
    }
}
