//! The current context at the call site, for spans made with the `tracing` crate.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use tracing::span::Id;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// A record of the `tracing` span that was current when a handler's context was entered.
struct Entered {
    over: Option<Id>,
}

/// Returns the innermost of the OpenTelemetry context and the current `tracing` span.
///
/// By default, the bridge makes the context of an entered span current. If it is configured not to,
/// it is unaware of a handler's context, and spans made in the handler would belong to a span
/// around the receiving loop, if there is one. Therefore the `tracing` span counts only if it was
/// entered after the handler's context; otherwise the handler's context counts.
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

/// Returns the current context if a span is active in it.
pub(crate) fn active() -> Option<Context> {
    Some(current()).filter(TraceContextExt::has_active_span)
}

/// Marks `context` as entered for a handler, over the `tracing` span that is current now.
pub(crate) fn entered(context: Context) -> Context {
    context.with_value(Entered { over: tracing::Span::current().id() })
}
