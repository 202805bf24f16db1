//! `daily.reconciliation`: goes through the books once a day.
//!
//! The first order of a day puts the job into the job table. It runs long after that request was answered, in another service,
//! so that it gets a trace of its own: a root span **linked** to who enqueued it. All that the table has to hold for this
//! is one string, the `traceparent`.

use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use parking_lot::Mutex;
use traced_broker::w3c::TraceParent;

use crate::books::Books;

pub(crate) const SERVICE: &str = "reconciliation-job";
/// The name of the job's root span.
pub(crate) const JOB: &str = "daily.reconciliation";

/// A row of the job table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    job_type: &'static str,
    trigger: &'static str,
    /// Of the span that enqueued it, as a W3C header value.
    traceparent: Option<String>,
}

/// The job table. Holds one row at most: the reconciliation of the day.
#[derive(Debug, Default)]
pub(crate) struct JobTable(Mutex<Option<Job>>);

impl JobTable {
    /// Enqueues today's reconciliation, unless it is there already, within a span of the current trace.
    pub(crate) fn enqueue(&self, tracer: &SdkTracer) {
        let mut row = self.0.lock();
        if row.is_some() {
            return;
        }
        let context = Context::current_with_span(tracer.start(format!("enqueue {JOB}")));
        let span = context.span();
        let traceparent = TraceParent::from_span_context(span.span_context()).ok();
        let traceparent = traceparent.map(|parent| parent.to_string());
        *row = Some(Job { job_type: "reconciliation", trigger: "first-order-of-day", traceparent });
        span.end();
    }

    /// Takes the job that is due.
    pub(crate) fn take(&self) -> Option<Job> {
        self.0.lock().take()
    }
}

impl Job {
    /// Goes through the books inside a root span of its own.
    pub(crate) fn reconcile(&self, tracer: &SdkTracer, books: &Books) {
        let span = tracer
            .span_builder(JOB)
            .with_kind(SpanKind::Internal)
            .with_links(self.enqueued_by().map(Link::with_context).into_iter().collect())
            .with_attributes([KeyValue::new("job.type", self.job_type), KeyValue::new("job.trigger", self.trigger)])
            // Not the current context, whatever it is: nobody waits for this job.
            .start_with_context(tracer, &Context::new());
        let context = Context::new().with_span(span);
        let mut comparing = tracer.build_with_context(tracer.span_builder("compare books"), &context);
        let open = books.unaccounted().len();
        comparing.end();
        let span = context.span();
        for (name, number) in [
            ("reconciliation.accepted", books.tally.accepted),
            ("reconciliation.fulfilled", books.tally.fulfilled),
            ("reconciliation.dead_lettered", books.tally.dead_lettered),
            ("reconciliation.unaccounted", open),
        ] {
            span.set_attribute(KeyValue::new(name, i64::try_from(number).unwrap_or(i64::MAX)));
        }
        if open > 0 {
            span.set_attribute(KeyValue::new("error.type", "unaccounted"));
            span.set_status(Status::error(format!("{open} orders are unaccounted for")));
        }
        span.end();
    }

    /// A span that was not sampled was not exported either: a link to it would lead nowhere.
    fn enqueued_by(&self) -> Option<SpanContext> {
        let parent = TraceParent::parse(self.traceparent.as_ref()?.as_bytes()).ok()?;
        parent.is_sampled().then(|| parent.to_span_context(TraceState::NONE))
    }
}
