//! Jobs: background work, done later or on a schedule, with links to the requests for it.
//!
//! A job that runs hours after it was requested does not belong *in* the trace of the request: that
//! trace has been stored and judged long ago, and would seem to last for hours. A trace without any
//! link would hide why the job ran. So a [`Job`] has its own trace, **linked** to each of the
//! [references](TraceReference) that were stored with it.
//!
//! ```
//! use traced_broker::{Job, TraceReference};
//!
//! # async fn example(rows: Vec<String>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! // At the request, such as in a handler: one string, for a column beside the work.
//! let column: Option<String> = TraceReference::current().map(|reference| reference.to_string());
//!
//! // At the work, perhaps after a restart: one job for all requests.
//! let references = rows.iter().filter_map(|row| row.parse().ok());
//! let written = Job::new("nightly report")
//!     .trigger("schedule")
//!     .job_type("report")
//!     .references(references)
//!     .run(async { Ok::<_, std::io::Error>(rows.len()) })
//!     .await?;
//! # Ok(()) }
//! ```

mod invalid;
mod reference;
mod span;

use crate::telemetry::scope;
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use futures_util::FutureExt as _;
use opentelemetry::context::FutureExt as _;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{Tracer, TracerProvider};

pub use self::invalid::InvalidReference;
pub use self::reference::TraceReference;
use self::span::JobSpan;
use crate::context::ambient;
use crate::error::{BoxError, Error};
use crate::message::{HandlerError, describe_panic};

/// The relation of a job's span to its references.
///
/// ```
/// use traced_broker::{Job, JobStyle, TraceReference};
///
/// let column = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01;1795368288498";
/// let asked: TraceReference = column.parse()?;
/// let thumbnail = Job::new("thumbnail").reference(asked.clone()).style(JobStyle::Child);
/// let report = Job::new("nightly report").reference(asked); // JobStyle::Link
/// # drop((thumbnail, report));
/// # Ok::<(), traced_broker::job::InvalidReference>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum JobStyle {
    /// The job has its own trace, linked to every reference. For work that is done long after it
    /// was requested, or for several requests at once.
    #[default]
    Link,
    /// The job's span is a child of the first reference and linked to the others; without a
    /// reference, the job has its own trace. For work that is done at once, but elsewhere.
    Child,
    /// The job has its own trace without any link; the references are not used. For untrusted
    /// references.
    None,
}

/// A piece of background work, and the span in which it runs.
///
/// The span is named `job {name}` and has the kind INTERNAL. From its start it has the attributes
/// [`JOB_NAME`](crate::names::attribute::JOB_NAME),
/// [`JOB_TRIGGER`](crate::names::attribute::JOB_TRIGGER) and
/// [`JOB_TYPE`](crate::names::attribute::JOB_TYPE), so that a sampler can tell jobs apart. Use few
/// distinct names; values that differ from run to run belong in attributes of child spans.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use traced_broker::Job;
///
/// let job = Job::new("cleanup").trigger("schedule").job_type("maintenance");
/// let removed = job.run(async { Ok::<_, std::io::Error>(3) }).await;
/// assert_eq!(removed.expect("cleaned up"), 3);
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a job does nothing until it is run"]
pub struct Job {
    name: String,
    trigger: Option<String>,
    job_type: Option<String>,
    style: JobStyle,
    references: Vec<TraceReference>,
    tracer: Option<Arc<BoxedTracer>>,
}

impl Job {
    /// Creates a job of this name, without references. Its span goes to the global tracer provider.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            trigger: None,
            job_type: None,
            style: JobStyle::default(),
            references: Vec::new(),
            tracer: None,
        }
    }

    /// Sets the trigger of the job, such as `schedule`, `request`, `retry` or `manual`.
    pub fn trigger(mut self, trigger: impl Into<String>) -> Self {
        self.trigger = Some(trigger.into());
        self
    }

    /// Sets the type of the job, such as `report` or `cleanup`.
    pub fn job_type(mut self, job_type: impl Into<String>) -> Self {
        self.job_type = Some(job_type.into());
        self
    }

    /// Adds the reference of a request for the job.
    pub fn reference(mut self, reference: TraceReference) -> Self {
        self.references.push(reference);
        self
    }

    /// Adds the references of any number of requests for the job.
    ///
    /// OpenTelemetry keeps 128 links per span. Further links go to child spans named `job {name}
    /// links`, so that none is dropped.
    pub fn references(mut self, references: impl IntoIterator<Item = TraceReference>) -> Self {
        self.references.extend(references);
        self
    }

    /// Sets the relation of the job's span to its references.
    pub fn style(mut self, style: JobStyle) -> Self {
        self.style = style;
        self
    }

    /// Sends the span to this provider instead of the global one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), std::io::Error> {
    /// use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    /// use traced_broker::{Job, TraceReference};
    ///
    /// let exporter = InMemorySpanExporter::default();
    /// let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    /// let job = Job::new("cleanup").with_tracer_provider(&provider);
    /// let work = async { Ok::<_, std::io::Error>(TraceReference::current()) };
    /// let reference = job.run(work).await?;
    ///
    /// let spans = exporter.get_finished_spans().expect("exported");
    /// assert_eq!(spans[0].name, "job cleanup");
    /// let span_id = reference.expect("inside the job").traceparent().span_id();
    /// assert_eq!(spans[0].span_context.span_id(), span_id);
    /// # Ok(()) }
    /// ```
    pub fn with_tracer_provider<P>(mut self, provider: &P) -> Self
    where
        P: TracerProvider,
        P::Tracer: Send + Sync + 'static,
        <P::Tracer as Tracer>::Span: Send + Sync + 'static,
    {
        self.tracer = Some(Arc::new(BoxedTracer::new(Box::new(provider.tracer_with_scope(scope())))));
        self
    }

    /// Runs the work inside the job's span, which is current for it, after every `await` too, and
    /// returns the result of the work.
    ///
    /// The span starts when the future is first polled and ends with the work. A span that is
    /// current where `run` is *called*, such as one around the scheduler's loop, is linked too
    /// (except with [`JobStyle::None`]). It is never the parent, because unrelated jobs would share
    /// its trace. The rest of that context, including its baggage, is not current for the work.
    ///
    /// Without an OpenTelemetry SDK there is no span, but the work runs all the same: within the
    /// context of the only reference, or of the first one with [`JobStyle::Child`], so that its
    /// trace continues behind this program. Otherwise no context is current.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use traced_broker::Job;
    ///
    /// let outcome = Job::new("cleanup").run(async { Err::<(), _>("the disk is full") }).await;
    /// assert_eq!(outcome, Err("the disk is full"));
    /// # }
    /// ```
    ///
    /// # Errors
    /// The work's own error, unchanged. The span's status describes it; `error.type` is the
    /// [kind](crate::ErrorKind::as_str) of an error of this library, and `job_error` for any other
    /// error.
    ///
    /// # Panics
    /// Panics if the work panics: the span ends with the status Error and the `error.type` `panic`,
    /// and the panic resumes. A loop should run each job in its own task, whose `JoinError` reports
    /// the panic.
    ///
    /// # Cancellation
    /// If the future is dropped before the work is done, the span ends with the status Error and
    /// the `error.type` `cancelled`.
    pub fn run<F, T, E>(self, work: F) -> impl Future<Output = Result<T, E>>
    where
        F: Future<Output = Result<T, E>>,
        E: fmt::Display + 'static,
    {
        let caller = ambient::active();
        async move {
            let span = JobSpan::start(&self, caller);
            let context = ambient::entered(span.context().clone());
            let outcome = AssertUnwindSafe(work).catch_unwind().with_context(context).await;
            match &outcome {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => span.fail(error_type(error), error.to_string()),
                Err(panic) => span.fail("panic", format!("the job panicked: {}", describe_panic(&**panic))),
            }
            span.finish();
            outcome.unwrap_or_else(|panic| resume_unwind(panic))
        }
    }
}

/// Returns the `error.type` of a job's error.
fn error_type(error: &(impl Any + 'static)) -> &'static str {
    let error: &dyn Any = error;
    if let Some(handler) = error.downcast_ref::<HandlerError>() {
        return handler.error_type();
    }
    let boxed = error.downcast_ref::<BoxError>().and_then(|boxed| boxed.downcast_ref::<Error>());
    error.downcast_ref::<Error>().or(boxed).map_or("job_error", |error| error.kind().as_str())
}
