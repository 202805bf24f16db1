//! What is current where the caller stands: to carry into work that is spawned, and to name in logs.
//!
//! Inside a handler the process span is current, after every `await`. It is not in what the handler spawns: a task or thread of its
//! own begins with nothing. [`in_current`] and [`in_current_fn`] take the context along, so that messages published there,
//! spans made there and logs written there belong to the process span.
//!
//! ```
//! use traced_broker::{HandlerError, Received, in_current, in_current_fn};
//!
//! async fn ship(message: Received) -> Result<(), HandlerError> {
//!     let booked = tokio::spawn(in_current(async move { message.payload().len() }));
//!     let label = tokio::task::spawn_blocking(in_current_fn(|| "a label that takes long to draw"));
//!     booked.await?;
//!     label.await?;
//!     Ok(())
//! }
//! ```
//!
//! Logs carry the ids of the current span by themselves where they go through OpenTelemetry's log bridge. For any other logger
//! there is [`trace_ids`].

use std::fmt;
use std::future::Future;

use opentelemetry::Context;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};

use crate::ambient;

/// Carries the context that is current now into a future that others will poll, as `tokio::spawn(in_current(work))`.
///
/// The context is that of the call, baggage included; where nothing is current the future runs with nothing current. With the
/// feature `tracing` it is that of the innermost span; the `tracing` span itself, whose fields a log may show, is carried by
/// that crate's `in_current_span`.
pub fn in_current<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let context = ambient::current();
    async move { work.with_context(ambient::entered(context)).await }
}

/// Carries the context that is current now into a function that others will call, as `spawn_blocking(in_current_fn(work))`.
///
/// As [`in_current`], for `spawn_blocking` and for threads.
pub fn in_current_fn<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let context: Context = ambient::current();
    move || {
        let _current = ambient::entered(context).attach();
        work()
    }
}

/// The ids of the span that is current, for logs; `None` where no span is.
///
/// It is the process span inside a handler, or whichever span was entered within it. It needs no SDK: without one, the ids are
/// those of the context that a message brought along, under a policy that continues it.
///
/// ```
/// use traced_broker::{Received, trace_ids};
///
/// async fn ship(message: Received) {
///     // … order=A-1 trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7
///     let ids = trace_ids().map(|ids| ids.to_string()).unwrap_or_default();
///     println!("shipping order={} {ids}", message.id().unwrap_or_default());
/// }
/// ```
pub fn trace_ids() -> Option<TraceIds> {
    TraceIds::of(ambient::current().span().span_context())
}

/// The ids of a span, as logs name them.
///
/// Written `trace_id=… span_id=…` in lower-case hexadecimal: the field names that OpenTelemetry gives for logs in other formats
/// than its own ("Trace Context in non-OTLP Log Formats").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceIds {
    trace_id: TraceId,
    span_id: SpanId,
    sampled: bool,
}

impl TraceIds {
    fn of(span: &SpanContext) -> Option<Self> {
        let ids = Self { trace_id: span.trace_id(), span_id: span.span_id(), sampled: span.is_sampled() };
        span.is_valid().then_some(ids)
    }

    /// The trace.
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// The span.
    pub fn span_id(&self) -> SpanId {
        self.span_id
    }

    /// Whether the span is recorded, so that the ids can be looked up.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }
}

impl fmt::Display for TraceIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trace_id={} span_id={}", self.trace_id, self.span_id)
    }
}
