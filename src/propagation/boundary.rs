//! What crosses the line between those who trust each other and those who do not.

use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};

/// What may cross a trust boundary; nothing but the ids of the trace unless it is allowed.
///
/// On the [way in](crate::Subscription::trust_boundary), the process span begins a trace of its own and links the sender's, so that
/// nobody outside can force sampling or make ids collide with ours: whether it is sampled is decided here, and the sender's flags
/// count for nothing. On the [way out](crate::Message::trust_boundary), the message carries the ids.
/// Either way `tracestate` and baggage are dropped unless allowed here.
///
/// (W3C Trace Context Level 2, "Security Considerations" and "Privacy Considerations"; W3C Baggage, the same sections.)
///
/// ```
/// use traced_broker::propagation::TrustBoundary;
/// use traced_broker::{Message, Subscription};
///
/// let boundary = TrustBoundary::new().allow_baggage("tenant");
/// let inbound = Subscription::new("partners.orders").group("intake").trust_boundary(boundary.clone());
/// let outbound = Message::new("shipped").trust_boundary(boundary);
/// ```
#[derive(Debug, Clone, Default)]
pub struct TrustBoundary {
    baggage: Vec<Arc<str>>,
    tracestate: bool,
}

impl TrustBoundary {
    /// A boundary that lets nothing through but the ids of the trace.
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

    /// The part of what came in that may be known here. The sampled flag is cleared, since the decision is not the sender's.
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

    /// The part of what goes out that others may know: a context that holds no more than it may.
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

/// Adds the baggage of another context, as far as it is wanted.
pub(super) fn carry_baggage(base: Context, from: &Context, is_wanted: impl Fn(&str) -> bool) -> Context {
    let entries = from.baggage().iter().filter(|(name, _)| is_wanted(name.as_str()));
    let baggage: opentelemetry::baggage::Baggage = entries.map(|(name, value)| (name.clone(), value.clone())).collect();
    if baggage.is_empty() { base } else { base.with_baggage(baggage) }
}
