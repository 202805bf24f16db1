//! The spans of one test, kept apart from those of concurrent tests.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::time::{Instant, timeout_at};

use super::captured::CapturedTrace;
use super::routes::{self, Route};
use super::spans::Spans;
use super::unsettled::Unsettled;
use crate::context::ambient;
use crate::verify::{Span, Traces, check};

/// The spans of one test, in memory. Cheap to clone; all clones are one capture.
///
/// Spans arrive in two ways:
///
/// - through a [provider](Self::provider), one for each service, given to anything that takes one:
///   a [broker](crate::Traced::with_tracer_provider), a layer of the `tracing` crate, the
///   application's own tracers;
/// - through the **global** provider, which the first capture of the process replaces, once, by a
///   router. A span goes to the capture of its trace. A span that starts a trace goes to the
///   capture whose [scope](Self::scope) it is started in, or to that of a trace that it links to.
///   Spans that belong to no capture go to the previous global provider.
///
/// # Limits
/// A spawned task has left the scope: a trace that it starts with a global tracer and without links
/// belongs to no capture and is not sampled. Work on messages is not affected, because it continues
/// or links the trace of the message. An application that sets the global provider itself, after
/// the first capture was created, replaces the router. If two captures have the same trace id at a
/// time, because it was made up, the spans of global tracers go to the first. At most
/// [`MOST_SPANS`](super::MOST_SPANS) spans are kept.
///
/// ```
/// use opentelemetry::trace::{Tracer, TracerProvider};
/// use traced_broker::testing::Capture;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let capture = Capture::new();
/// capture
///     .in_root_span("shop", "POST /orders", async {
///         opentelemetry::global::tracer("application").in_span("validate", |_| ());
///     })
///     .await;
/// let trace = capture.trace("POST /orders");
/// trace.assert_whole().spans(["POST /orders", "validate"]).services(["shop"]);
/// # }
/// ```
#[derive(Clone)]
pub struct Capture(pub(super) Arc<Spans>);

impl Capture {
    /// Creates a capture without spans.
    #[must_use]
    pub fn new() -> Self {
        routes::install();
        Self(Arc::default())
    }

    /// Creates a capture whose spans have the virtual times and the random ids of a simulation. It
    /// needs a tokio runtime.
    pub(super) fn in_virtual_time() -> Self {
        routes::install();
        Self(Arc::new(Spans::in_virtual_time()))
    }

    /// Returns the spans that have not ended.
    pub(super) fn open_spans(&self) -> Vec<Span> {
        self.0.open()
    }

    /// Returns the tracer provider of the service with this name, always the same one. It respects
    /// the sampling decision of a parent, and records every trace that it starts, whatever the
    /// environment says.
    #[must_use]
    pub fn provider(&self, service: &str) -> SdkTracerProvider {
        self.0.provider(service)
    }

    /// Runs `future` so that traces it starts with global tracers belong to this capture.
    pub async fn scope<F: Future>(&self, future: F) -> F::Output {
        let context = ambient::current().with_value(Route(Arc::clone(&self.0)));
        future.with_context(ambient::entered(context)).await
    }

    /// Runs `future` in a new trace, as if `service` handled a request: in a root span of this
    /// name, of kind SERVER, which is current for the future and ends with it. The outer context is
    /// not current in it: neither its span nor its baggage.
    pub async fn in_root_span<F: Future>(
        &self,
        service: &str,
        name: impl Into<Cow<'static, str>>,
        future: F,
    ) -> F::Output {
        let tracer = self.provider(service).tracer(env!("CARGO_PKG_NAME"));
        let outside = Context::new().with_value(Route(Arc::clone(&self.0)));
        let builder = tracer.span_builder(name).with_kind(SpanKind::Server);
        let context = outside.with_span(tracer.build_with_context(builder, &outside));
        let output = future.with_context(ambient::entered(context.clone())).await;
        context.span().end();
        output
    }

    /// Waits until no span is open, for up to `patience`.
    ///
    /// # Errors
    /// [`Unsettled`] with the spans that did not end in time.
    pub async fn ended(&self, patience: Duration) -> Result<(), Unsettled> {
        let deadline = Instant::now() + patience;
        loop {
            // In this order, a span that ends between the two is not missed.
            let changed = self.0.changed();
            let open = self.0.open();
            if open.is_empty() {
                return Ok(());
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Err(Unsettled::new(patience, open, Vec::new(), self.traces()));
            }
        }
    }

    /// Returns a copy of everything captured so far, in which open spans have no end.
    #[must_use]
    pub fn traces(&self) -> Traces {
        self.0.traces()
    }

    /// Returns the trace that begins with a span of this name, for assertions.
    ///
    /// # Panics
    /// If there is none, or more than one: in that case see [`traces_named`](Self::traces_named).
    #[track_caller]
    pub fn trace(&self, root: &str) -> CapturedTrace {
        let mut found = self.traces_named(root);
        match (found.pop(), found.len()) {
            (Some(trace), 0) => trace,
            (None, _) => panic!("no trace begins with a span called `{root}`; {}", self.contents()),
            (Some(_), others) => {
                panic!("{} traces begin with a span called `{root}`; {}", others + 1, self.contents())
            }
        }
    }

    /// Returns every trace that begins with a span of this name, by the start of its first span.
    ///
    /// # Panics
    /// If spans were lost, because there were more than [`MOST_SPANS`](super::MOST_SPANS).
    #[must_use]
    #[track_caller]
    pub fn traces_named(&self, root: &str) -> Vec<CapturedTrace> {
        CapturedTrace::all(self.kept()).filter(|trace| trace.begins_with(root)).collect()
    }

    /// Asserts that there is at least one trace and all are whole.
    ///
    /// # Panics
    /// If this is not so, with the findings and the pictures of the broken traces.
    #[track_caller]
    pub fn assert_whole(&self) {
        let traces = self.kept();
        assert!(!traces.is_empty(), "nothing was captured, so there is no trace to check");
        let report = check(&traces);
        if report.is_whole() {
            return;
        }
        let first = CapturedTrace::all(traces).find(|trace| !report.of(trace.trace().id()).is_empty());
        first.iter().for_each(|trace| {
            trace.assert_whole();
        });
    }

    #[track_caller]
    fn kept(&self) -> Traces {
        let lost = self.0.lost();
        assert!(lost == 0, "the capture is full: {lost} spans beyond {} were not kept", super::MOST_SPANS);
        self.traces()
    }

    /// Describes the contents, for the message of a failed assertion.
    fn contents(&self) -> String {
        let traces = self.traces();
        let mut roots: Vec<String> = traces.iter().map(|trace| format!("`{}`", trace.spans()[0].name)).collect();
        let count = roots.len();
        roots.truncate(20);
        match count {
            0 => "nothing was captured".to_owned(),
            1 => format!("one trace was captured, which begins with {}", roots[0]),
            _ => format!("{count} traces were captured, which begin with {}", roots.join(", ")),
        }
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("traces", &self.traces().len()).finish_non_exhaustive()
    }
}
