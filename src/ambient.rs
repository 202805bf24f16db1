//! The context that is current where the caller stands.

use opentelemetry::Context;

/// The current OpenTelemetry context.
pub(crate) fn current() -> Context {
    Context::current()
}

/// Marks `context` as entered for a handler; without the bridge to `tracing` there is nothing to mark.
pub(crate) fn entered(context: Context) -> Context {
    context
}
