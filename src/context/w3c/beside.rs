//! The parts of a received trace that do not fit into OpenTelemetry's own types.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceId, TraceState};

use super::traceparent::TraceParent;
use super::tracestate;

/// A value of the [`Context`], which children of the remote span inherit from it.
///
/// It is bound to the trace id, because a new trace may be started under the same context.
#[derive(Debug)]
pub(super) struct Beside {
    trace_id: TraceId,
    /// `true` if the trace id is random; the SDK's tracer loses this flag for spans it does not
    /// sample.
    is_random: bool,
    /// A list that `TraceState` cannot hold, and the part that it does hold.
    tracestate: Option<(TraceState, Box<str>)>,
}

impl Beside {
    /// Returns the context with a remote span and, if needed, with the parts that the span context
    /// cannot hold. In most cases there are none, and no further value is allocated.
    pub(super) fn extend(base: &Context, parent: TraceParent, tracestate: &str) -> Context {
        let (state, holds_all) = tracestate::to_trace_state(tracestate);
        let beside = Self {
            trace_id: parent.trace_id(),
            is_random: parent.is_random(),
            tracestate: (!holds_all).then(|| (state.clone(), tracestate.into())),
        };
        let is_needed = beside.is_random || beside.tracestate.is_some();
        let context = base.with_remote_span_context(parent.to_span_context(state));
        // A value that an earlier reader left in the base must not apply to this trace.
        if is_needed || base.get::<Self>().is_some() { context.with_value(beside) } else { context }
    }

    /// Returns the value that was received with the trace of the span.
    pub(super) fn find<'a>(context: &'a Context, span: &SpanContext) -> Option<&'a Self> {
        context.get::<Self>().filter(|beside| beside.trace_id == span.trace_id())
    }

    /// Returns `true` if the trace id is known to be random.
    pub(super) fn is_random(&self) -> bool {
        self.is_random
    }

    /// Returns the list as received, in normal form, unless a sampler or the application has
    /// changed it since.
    pub(super) fn tracestate(&self, span: &SpanContext) -> Option<&str> {
        let (held, text) = self.tracestate.as_ref()?;
        (held == span.trace_state()).then_some(text)
    }
}
