//! The current context at the call site.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

/// Returns the current OpenTelemetry context.
pub(crate) fn current() -> Context {
    Context::current()
}

/// Returns the current context if a span is active in it.
pub(crate) fn active() -> Option<Context> {
    Some(current()).filter(TraceContextExt::has_active_span)
}

/// Marks `context` as entered for a handler; a no-op without the bridge to `tracing`.
pub(crate) fn entered(context: Context) -> Context {
    context
}
