//! Jobs: work that nobody waits for, done later or by the clock, and tied to those who asked for it.
//!
//! A job that runs hours after it was asked for does not belong *into* the trace that asked: that trace has been stored and judged
//! long ago, and would seem to last for hours. Nor may it stand for itself, or nobody finds out why it ran. So
//! a [`Job`] is a trace of its own, **linked** to each of the [references](TraceReference) that were stored with it.
//!
//! ```
//! use traced_broker::{Job, TraceReference};
//!
//! # async fn example(rows: Vec<String>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! // Where it is asked for, such as in a handler: one string, for a column beside the work.
//! let column: Option<String> = TraceReference::current().map(|reference| reference.to_string());
//!
//! // Where it is done, perhaps after a restart: one job for all that was asked for.
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
use crate::ambient;
use crate::delivery::describe_panic;
use crate::error::{BoxError, Error};
use crate::handler::HandlerError;
use crate::tracer::Telemetry;

/// Attribute of job spans: the name of the job.
pub const JOB_NAME: &str = "job.name";
/// Attribute of job spans: what made the job run, as the application says.
pub const JOB_TRIGGER: &str = "job.trigger";
/// Attribute of job spans: what kind of job it is, as the application says.
pub const JOB_TYPE: &str = "job.type";
/// Attribute of a job span's links: seconds from when the [reference was made](TraceReference::made_at) until the job ran.
pub const REFERENCE_AGE: &str = "job.reference.age";
/// Attribute of a job span's links: the [note](TraceReference::note) of the reference.
pub const REFERENCE_NOTE: &str = "job.reference.note";

/// How a job's span is tied to the references it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum JobStyle {
    /// A trace of its own, linked to every reference. For work that is done long after it was asked for, or for several at once.
    #[default]
    Link,
    /// A child of the first reference, linked to the others; a trace of its own where there is no reference. For work that is
    /// done at once and only elsewhere.
    Child,
    /// A trace of its own without any link: the references are not used. For references that are not to be trusted.
    None,
}

/// A piece of background work and the span it runs in.
///
/// The span is called `job {name}`, of kind INTERNAL, and has the attributes [`JOB_NAME`], [`JOB_TRIGGER`] and [`JOB_TYPE`] from
/// its start, so that a sampler can tell jobs apart. Keep the name to one of a few: what differs from run to run
/// belongs in attributes of spans below.
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
    /// A job of this name, without references. Its span goes to the global tracer provider.
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

    /// Says what made the job run, such as `schedule`, `request`, `retry` or `manual`.
    pub fn trigger(mut self, trigger: impl Into<String>) -> Self {
        self.trigger = Some(trigger.into());
        self
    }

    /// Says what kind of job it is, such as `report` or `cleanup`.
    pub fn job_type(mut self, job_type: impl Into<String>) -> Self {
        self.job_type = Some(job_type.into());
        self
    }

    /// Adds the reference of one who asked for the job.
    pub fn reference(mut self, reference: TraceReference) -> Self {
        self.references.push(reference);
        self
    }

    /// Adds the references of any number who asked for the job.
    ///
    /// OpenTelemetry keeps 128 links per span: those beyond go to children of the job's span, named `job {name} links`, so that none
    /// is dropped.
    pub fn references(mut self, references: impl IntoIterator<Item = TraceReference>) -> Self {
        self.references.extend(references);
        self
    }

    /// Sets how the job's span is tied to the references.
    pub fn style(mut self, style: JobStyle) -> Self {
        self.style = style;
        self
    }

    /// Sends the span to this provider in place of the global one.
    pub fn with_tracer_provider<P>(mut self, provider: &P) -> Self
    where
        P: TracerProvider,
        P::Tracer: Send + Sync + 'static,
        <P::Tracer as Tracer>::Span: Send + Sync + 'static,
    {
        self.tracer = Some(Arc::new(BoxedTracer::new(Box::new(provider.tracer_with_scope(Telemetry::scope())))));
        self
    }

    /// Does the work inside the job's span, which is current for it and after every `await`, and gives back what it gave.
    ///
    /// The span starts when the future is first polled and ends with the work. A span that is current where `run` is *called*, such as
    /// one around the scheduler's loop, is linked too (but with [`JobStyle::None`]) and is never the parent: unrelated
    /// jobs would share its trace. Nothing else of that context, no baggage, is current for the work.
    ///
    /// Without an OpenTelemetry SDK there is no span and the work runs all the same, within the context of the only reference, or with
    /// [`JobStyle::Child`] of the first, so that its trace goes on behind this program. Several cannot go on in one: then
    /// nothing is current, nor with [`JobStyle::None`].
    ///
    /// # Errors
    /// The work's own error, unchanged. The span's status tells it, and `error.type` is the [kind](crate::ErrorKind::as_str) of an error of
    /// this library and `job_error` for any other.
    ///
    /// # Panics
    /// When the work panics: the span ends with the status Error and `error.type` `panic`, then the panic goes on. Whoever runs
    /// jobs in a loop has each in a task of its own, whose `JoinError` tells it.
    ///
    /// # Cancellation
    /// When the future is dropped before the work is done, the span ends with the status Error and `error.type` `cancelled`.
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

/// The `error.type` of what a job failed with.
fn error_type(error: &(impl Any + 'static)) -> &'static str {
    let error: &dyn Any = error;
    if let Some(handler) = error.downcast_ref::<HandlerError>() {
        return handler.error_type();
    }
    let boxed = error.downcast_ref::<BoxError>().and_then(|boxed| boxed.downcast_ref::<Error>());
    error.downcast_ref::<Error>().or(boxed).map_or("job_error", |error| error.kind().as_str())
}
