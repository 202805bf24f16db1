//! The span of a job.

use crate::names::attribute;
use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{Link, Span, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use crate::runtime::job::{Job, JobStyle, TraceReference};
use crate::telemetry::span::MAX_LINKS;
use crate::telemetry::{Settings, Telemetry};

/// The span of a job: current for the work, and ended after it.
pub(super) struct JobSpan {
    context: Context,
    open: bool,
    /// Child spans for the links beyond [`MAX_LINKS`].
    more: Vec<BoxedSpan>,
}

impl JobSpan {
    /// Starts the span of a job that is run by `caller`.
    pub(super) fn start(job: &Job, caller: Option<Context>) -> Self {
        let telemetry = Telemetry::new(Settings { tracer: job.tracer.clone(), ..Settings::default() });
        let (parent, links) = ties(job, caller);
        let mut chunks = links.chunks(MAX_LINKS).map(<[Link]>::to_vec);
        let name = format!("job {}", job.name);
        let first = telemetry.start(&parent, || builder(job, name.clone(), chunks.next().unwrap_or_default()));
        let Some(first) = first.filter(|span| span.span_context().is_valid()) else {
            return Self { context: without_span(job, parent), open: false, more: Vec::new() };
        };
        let context = parent.with_span(first);
        let more =
            chunks.filter_map(|links| telemetry.start(&context, || builder(job, format!("{name} links"), links)));
        let more = more.collect();
        Self { context, open: true, more }
    }

    /// Returns the context for the work.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn fail(&self, error_type: &'static str, description: String) {
        let span = self.context.span();
        if self.open && span.is_recording() {
            span.set_attribute(KeyValue::new(attribute::ERROR_TYPE, error_type));
            span.set_status(Status::error(description));
        }
    }

    /// Ends the span: the work is done.
    pub(super) fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            self.more.iter_mut().for_each(Span::end);
            self.context.span().end();
        }
    }
}

impl Drop for JobSpan {
    /// Marks an unfinished job as cancelled.
    fn drop(&mut self) {
        self.fail("cancelled", "the job was cancelled before it finished".to_owned());
        self.end();
    }
}

fn builder(job: &Job, name: String, links: Vec<Link>) -> SpanBuilder {
    let mut attributes = vec![KeyValue::new(attribute::JOB_NAME, job.name.clone())];
    attributes.extend(job.trigger.clone().map(|trigger| KeyValue::new(attribute::JOB_TRIGGER, trigger)));
    attributes.extend(job.job_type.clone().map(|job_type| KeyValue::new(attribute::JOB_TYPE, job_type)));
    SpanBuilder {
        span_kind: Some(SpanKind::Internal),
        attributes: Some(attributes),
        links: (!links.is_empty()).then_some(links),
        ..SpanBuilder::from_name(name)
    }
}

/// Returns the parent context of the job's span, and its links.
fn ties(job: &Job, caller: Option<Context>) -> (Context, Vec<Link>) {
    let (parent, linked) = match (job.style, &*job.references) {
        (JobStyle::None, _) => return (Context::new(), Vec::new()),
        (JobStyle::Child, [first, others @ ..]) => (first.context(), others),
        (JobStyle::Child | JobStyle::Link, linked) => (Context::new(), linked),
    };
    // The span that requested a job may also run it; one link is enough.
    let is_tied = |caller: &SpanContext| job.references.iter().any(|reference| refers(reference, caller));
    let caller = caller.map(|context| context.span().span_context().clone());
    let caller = caller.filter(|caller| caller.is_valid() && !is_tied(caller)).map(Link::with_context);
    (parent, caller.into_iter().chain(linked.iter().map(link)).collect())
}

/// Returns the context for the work if no span can be made, and so no link. The context of a single
/// reference passes through, like that of a linked message.
fn without_span(job: &Job, parent: Context) -> Context {
    match (job.style, &*job.references) {
        (JobStyle::Link, [only]) => only.context(),
        _ => parent,
    }
}

fn refers(reference: &TraceReference, span: &SpanContext) -> bool {
    let parent = reference.traceparent();
    parent.trace_id() == span.trace_id() && parent.span_id() == span.span_id()
}

fn link(reference: &TraceReference) -> Link {
    let mut attributes = vec![KeyValue::new(attribute::REFERENCE_AGE, reference.age().as_secs_f64())];
    attributes.extend(reference.note().map(|note| KeyValue::new(attribute::REFERENCE_NOTE, note.to_owned())));
    Link::new(reference.span_context(), attributes, 0)
}
