//! The part of a context that crosses a trust boundary.

use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};

/// The part of a context that may cross a trust boundary: only the ids of the trace unless more is
/// allowed.
///
/// [Inbound](crate::Subscription::trust_boundary), the process span starts a new trace and links
/// the sender's. Untrusted peers can therefore neither force sampling nor cause collisions with
/// local ids: the sampling decision is made afresh, and the sender's flags are ignored.
/// [Outbound](crate::Message::trust_boundary), the message carries the ids. In both directions,
/// `tracestate` and baggage are dropped unless allowed here.
///
/// (W3C Trace Context Level 2, "Security Considerations" and "Privacy Considerations"; W3C Baggage,
/// the same sections.)
///
/// ```
/// use traced_broker::propagation::TrustBoundary;
/// use traced_broker::{Message, Subscription};
///
/// let boundary = TrustBoundary::new().allow_baggage("tenant");
/// let inbound = Subscription::new("partners.orders").trust_boundary(boundary.clone());
/// let outbound = Message::new("shipped").trust_boundary(boundary);
/// ```
#[derive(Debug, Clone, Default)]
pub struct TrustBoundary {
    baggage: Vec<Arc<str>>,
    tracestate: bool,
}

impl TrustBoundary {
    /// Creates a boundary that lets only the ids of the trace through.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the baggage entry of this name through.
    #[must_use]
    pub fn allow_baggage(mut self, name: impl AsRef<str>) -> Self {
        self.baggage.push(name.as_ref().into());
        self
    }

    /// Lets `tracestate` through.
    #[must_use]
    pub fn keep_tracestate(mut self) -> Self {
        self.tracestate = true;
        self
    }

    /// Returns the part of a received context that may be used here. The sampled flag is cleared,
    /// because the decision is not the sender's.
    pub(super) fn admit(&self, context: &Context) -> Context {
        let remote = context.span();
        let remote = remote.span_context();
        let inside = self.with_allowed_baggage(Context::new(), context);
        if remote.is_valid() {
            inside.with_remote_span_context(self.stripped(remote, TraceFlags::default()))
        } else {
            inside
        }
    }

    /// Returns the part of a context that may be sent to other parties.
    pub(super) fn release(&self, span: &SpanContext, context: &Context) -> Context {
        let outside = self.with_allowed_baggage(Context::new(), context);
        if span.is_valid() {
            outside.with_remote_span_context(self.stripped(span, span.trace_flags()))
        } else {
            outside
        }
    }

    fn stripped(&self, span: &SpanContext, flags: TraceFlags) -> SpanContext {
        let state = if self.tracestate { span.trace_state().clone() } else { TraceState::NONE };
        SpanContext::new(span.trace_id(), span.span_id(), flags, true, state)
    }

    fn with_allowed_baggage(&self, base: Context, from: &Context) -> Context {
        let is_allowed = |name: &str| self.baggage.iter().any(|allowed| **allowed == *name);
        carry_baggage(base, from, is_allowed)
    }
}

/// Adds the wanted baggage entries of another context.
pub(super) fn carry_baggage(base: Context, from: &Context, is_wanted: impl Fn(&str) -> bool) -> Context {
    let entries = from.baggage().iter().filter(|(name, _)| is_wanted(name.as_str()));
    let baggage: opentelemetry::baggage::Baggage = entries.map(|(name, value)| (name.clone(), value.clone())).collect();
    if baggage.is_empty() { base } else { base.with_baggage(baggage) }
}
