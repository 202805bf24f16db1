//! The current context at the call site: carried into spawned work, and named in logs.
//!
//! Inside a handler the process span is current, also after every `await`. It is not current in
//! tasks or threads that the handler spawns. [`in_current`] and [`in_current_fn`] carry the context
//! along, so that messages published there, spans created there and logs written there belong to
//! the process span.
//!
//! ```
//! use traced_broker::{HandlerError, Received, in_current, in_current_fn};
//!
//! async fn ship(message: Received) -> Result<(), HandlerError> {
//!     let booked = tokio::spawn(in_current(async move { message.payload().len() }));
//!     let draw = in_current_fn(|| "a label that takes long to draw");
//!     let label = tokio::task::spawn_blocking(draw);
//!     booked.await?;
//!     label.await?;
//!     Ok(())
//! }
//! ```
//!
//! Logs that go through OpenTelemetry's log bridge carry the ids of the current span automatically.
//! For any other logger there is [`trace_ids`].

use std::fmt;
use std::future::Future;

use opentelemetry::Context;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};

use crate::context::ambient;

/// Carries the context that is current now into a future that is polled elsewhere, as in
/// `tokio::spawn(in_current(work))`.
///
/// The context is that of the call, baggage included; if there is none, the future runs without
/// one. With the feature `tracing` it is the context of the innermost span. The `tracing` span
/// itself, whose fields may appear in logs, is carried by that crate's `in_current_span`.
///
/// ```
/// use opentelemetry::{Context, context::FutureExt};
/// use traced_broker::{in_current, trace_ids, w3c};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let handler = async {
///     let ids = trace_ids().expect("a current span");
///     let carried = tokio::spawn(in_current(async { trace_ids() })).await;
///     assert_eq!(carried.expect("no panic"), Some(ids));
///
///     let bare = tokio::spawn(async { trace_ids() }).await;
///     assert_eq!(bare.expect("no panic"), None); // the trace would break here
/// };
/// let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let received = w3c::decode(Some(parent), None, None, &Context::new()).context;
/// handler.with_context(received).await;
/// # }
/// ```
pub fn in_current<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let context = ambient::current();
    async move { work.with_context(ambient::entered(context)).await }
}

/// Carries the context that is current now into a function that is called elsewhere, as in
/// `spawn_blocking(in_current_fn(work))`.
///
/// The counterpart of [`in_current`] for `spawn_blocking` and for threads.
///
/// ```
/// use opentelemetry::Context;
/// use traced_broker::{in_current_fn, trace_ids, w3c};
///
/// let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let received = w3c::decode(Some(parent), None, None, &Context::new()).context;
/// let _current = received.attach(); // as in a handler
///
/// let carried = std::thread::spawn(in_current_fn(trace_ids)).join();
/// assert_eq!(carried.expect("no panic"), trace_ids());
/// let bare = std::thread::spawn(trace_ids).join();
/// assert_eq!(bare.expect("no panic"), None);
/// ```
pub fn in_current_fn<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let context: Context = ambient::current();
    move || {
        let _current = ambient::entered(context).attach();
        work()
    }
}

/// Returns the ids of the current span, for logs; `None` without a current span.
///
/// Inside a handler, this is the process span, or a span entered within it. No SDK is required:
/// without one, the ids are those of the context that the message carried, under a policy that
/// continues its trace.
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

/// The ids of a span, for logs.
///
/// Formatted as `trace_id=… span_id=…` in lower-case hexadecimal. OpenTelemetry recommends these
/// field names for logs in formats other than its own ("Trace Context in non-OTLP Log Formats").
///
/// ```
/// use opentelemetry::Context;
/// use traced_broker::{trace_ids, w3c};
///
/// assert!(trace_ids().is_none()); // no current span
///
/// let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let _current = w3c::decode(Some(parent), None, None, &Context::new()).context.attach();
/// let ids = trace_ids().expect("a current span");
/// assert!(ids.is_sampled());
/// assert_eq!(
///     ids.to_string(),
///     "trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7"
/// );
/// ```
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

    /// Returns the trace id.
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// Returns the span id.
    pub fn span_id(&self) -> SpanId {
        self.span_id
    }

    /// Returns `true` if the span is sampled, so that the ids can be found in a tracing backend.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }
}

impl fmt::Display for TraceIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trace_id={} span_id={}", self.trace_id, self.span_id)
    }
}
