//! What was received with a trace and does not fit into OpenTelemetry's own types.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceId, TraceState};

use super::traceparent::TraceParent;
use super::tracestate;

/// A value of the [`Context`], which children of the remote span inherit from it.
///
/// It is bound to the trace id, since a new trace may be started under the same context.
#[derive(Debug)]
pub(super) struct Beside {
    trace_id: TraceId,
    /// The trace id is random; the SDK's tracer forgets that for spans it does not sample.
    is_random: bool,
    /// A list that `TraceState` cannot hold, and what it holds in its stead.
    tracestate: Option<(TraceState, Box<str>)>,
}

impl Beside {
    /// The context with a remote span, and beside it what the span context cannot hold: nothing in most cases,
    /// and nothing more is allocated then.
    pub(super) fn extend(base: &Context, parent: TraceParent, tracestate: &str) -> Context {
        let (state, holds_all) = tracestate::to_trace_state(tracestate);
        let beside = Self {
            trace_id: parent.trace_id(),
            is_random: parent.is_random(),
            tracestate: (!holds_all).then(|| (state.clone(), tracestate.into())),
        };
        let is_needed = beside.is_random || beside.tracestate.is_some();
        let context = base.with_remote_span_context(parent.to_span_context(state));
        // What an earlier reader left in the base must not speak for this one.
        if is_needed || base.get::<Self>().is_some() { context.with_value(beside) } else { context }
    }

    /// What was received with the trace that the span belongs to.
    pub(super) fn find<'a>(context: &'a Context, span: &SpanContext) -> Option<&'a Self> {
        context.get::<Self>().filter(|beside| beside.trace_id == span.trace_id())
    }

    /// Whether the trace id is known to be random.
    pub(super) fn is_random(&self) -> bool {
        self.is_random
    }

    /// The list as received, in normal form, unless it was changed since by a sampler or the application.
    pub(super) fn tracestate(&self, span: &SpanContext) -> Option<&str> {
        let (held, text) = self.tracestate.as_ref()?;
        (held == span.trace_state()).then_some(text)
    }
}
