//! The context that is current where the caller stands.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

/// The current OpenTelemetry context.
pub(crate) fn current() -> Context {
    Context::current()
}

/// The current context if a span is active in it.
pub(crate) fn active() -> Option<Context> {
    Some(current()).filter(TraceContextExt::has_active_span)
}

/// Marks `context` as entered for a handler; without the bridge to `tracing` there is nothing to mark.
pub(crate) fn entered(context: Context) -> Context {
    context
}
