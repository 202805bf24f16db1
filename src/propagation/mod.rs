//! How spans of different services are tied together: the context that a message carries, and what its consumer makes of it.
//!
//! # What holds unless someone says otherwise
//! | hop | the process span is | because |
//! |---|---|---|
//! | direct | a child, and linked | one trace from the request to the worker is what people look for |
//! | [delayed](crate::Message::deliver_at), [scheduled](Hop::Scheduled) | of a trace of its own, linked | a child hours later stretches the trace, and comes after a tail sampler has decided |
//! | dead letter | a child, and linked | it is the end of the same story |
//! | [replay](Hop::Replay) | of a trace of its own, linked | what is done again was not part of the first time |
//! | bridge | a child, and linked | two brokers on the way are still one way |
//!
//! [`Subscription::trace_policy`](crate::Subscription::trace_policy) decides for all hops,
//! [`trace_policy_for`](crate::Subscription::trace_policy_for) for one kind, [`Message::trace_policy`](crate::Message::trace_policy) for one
//! message. A [`TrustBoundary`] comes before all of them. The order is: boundary, the subscription's policy, the message's, the
//! subscription's for the kind of hop, the table above. A replay is not the sender's to judge: there the message's policy does not count.

mod boundary;
mod origin;
mod policy;
mod rejections;
mod replay;

use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt};

use crate::carrier::{HeaderExtractor, HeaderInjector};
use crate::headers::Headers;
use crate::message::Message;
use crate::w3c::{self, Issues, W3cPropagator};

pub use boundary::TrustBoundary;
pub(crate) use origin::{Origin, Reception};
pub use policy::{Hop, TRACE_HOP, TRACE_POLICY, TracePolicy};
pub(crate) use rejections::Rejections;
pub(crate) use replay::{ReplayMark, Replays};

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
    /// `context` itself where no span could be made. A boundary lets only a part of it out.
    pub(crate) fn inject(
        &self,
        span: Option<&SpanContext>,
        context: &Context,
        boundary: Option<&TrustBoundary>,
        headers: &mut Headers,
    ) {
        if !headers.is_empty() {
            for field in self.fields.iter() {
                headers.remove(field);
            }
        }
        if let Some(boundary) = boundary {
            let current = context.span();
            let released = boundary.release(span.unwrap_or(current.span_context()), context);
            return self.write(None, &released, headers);
        }
        self.write(span, context, headers);
    }

    /// Says in the headers what the sender wants to be known of the hop; what an earlier sender said does not hold for a new message.
    pub(crate) fn mark_new(message: &mut Message) {
        if !message.headers.is_empty() {
            message.headers.remove(TRACE_HOP);
            message.headers.remove(TRACE_POLICY);
        }
        let hop = message.hop_kind();
        if hop != Hop::Direct {
            message.headers.append(TRACE_HOP, hop.as_str());
        }
        if let Some(policy) = message.policy {
            message.headers.append(TRACE_POLICY, policy.as_str());
        }
    }

    /// As [`mark_new`](Self::mark_new), of a message that is passed on: what was said before holds unless something else is said now.
    pub(crate) fn mark_passed_on(message: &mut Message) {
        if let Some(hop) = message.hop {
            message.headers.insert(TRACE_HOP, hop.as_str());
        }
        if let Some(policy) = message.policy {
            message.headers.insert(TRACE_POLICY, policy.as_str());
        }
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

    /// The creation context that the headers carry, read onto an empty context and never onto the current one.
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
                let names = [w3c::TRACEPARENT, w3c::TRACESTATE, w3c::BAGGAGE];
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

/// A context that was read from headers, and what of them was not used.
#[derive(Debug)]
pub(crate) struct Extracted {
    pub(crate) context: Context,
    issues: Issues,
    /// Headers of the user's propagator were there and gave no context.
    unrecognized: bool,
}

impl Extracted {
    /// Calls `visit` with each header that was not used, why, and how many there were of the kind.
    pub(crate) fn rejections(&self, mut visit: impl FnMut(&'static str, &'static str, usize)) {
        let Issues { traceparent, tracestate, tracestate_dropped, baggage_dropped, .. } = self.issues;
        if let Some(reason) = traceparent {
            visit(w3c::TRACEPARENT, reason.as_str(), 1);
        }
        if let Some(reason) = tracestate {
            visit(w3c::TRACESTATE, reason.as_str(), 1);
        }
        if tracestate_dropped > 0 {
            visit(w3c::TRACESTATE, "member", tracestate_dropped);
        }
        if baggage_dropped > 0 {
            visit(w3c::BAGGAGE, "member", baggage_dropped);
        }
        if self.unrecognized {
            visit("other", "unrecognized", 1);
        }
    }
}

fn fields_of(propagator: &dyn TextMapPropagator) -> impl Iterator<Item = String> {
    propagator.fields().map(str::to_owned)
}
