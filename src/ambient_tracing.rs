//! The context that is current where the caller stands, when spans are made with the `tracing` crate.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use tracing::span::Id;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Remembers which `tracing` span was current when a handler's context was entered.
struct Entered {
    over: Option<Id>,
}

/// The innermost of the OpenTelemetry context and the current `tracing` span.
///
/// The bridge by default makes the context of an entered span current by itself. Where it is set up not to, it knows
/// nothing of a handler's context, so that spans made in the handler belong to a span around the receiving loop if there
/// is one; the span counts if it was entered after the handler's context, and the handler's context counts if not.
pub(crate) fn current() -> Context {
    let context = Context::current();
    let span = tracing::Span::current();
    let over = match context.get::<Entered>() {
        Some(entered) => entered.over.clone(),
        None if context.has_active_span() => return context,
        None => None,
    };
    if span.id() == over {
        return context;
    }
    let bridged = span.context();
    if bridged.span().span_context().is_valid() { bridged } else { context }
}

/// The current context if a span is active in it.
pub(crate) fn active() -> Option<Context> {
    Some(current()).filter(TraceContextExt::has_active_span)
}

/// Marks `context` as entered for a handler, over the `tracing` span that is current now.
pub(crate) fn entered(context: Context) -> Context {
    context.with_value(Entered { over: tracing::Span::current().id() })
}
