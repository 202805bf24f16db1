//! The layout of traces: their rows and the time axis, which all drawings share.

mod axis;
mod notes;
mod row;
mod tree;
mod waits;

use std::collections::HashMap;

pub(super) use self::axis::Axis;
pub(super) use self::notes::{Mark, Note};
pub(super) use self::row::{Bar, BarKind, Body, Row, Wait, Work};
use self::waits::Waits;
use super::check::{Finding, TraceReport};
use super::id::{SpanId, SpanRef, TraceId};
use super::span::Span;
use super::trace::{Trace, Traces};

/// The settings that determine the rows of a drawing.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// Traces to find senders and link targets in.
    pub(super) among: Option<&'a Traces>,
    pub(super) report: Option<&'a TraceReport>,
    /// The only trace with findings and missing link targets, if the link targets of the others
    /// were not read.
    pub(super) only: Option<TraceId>,
    /// Maximum number of rows of each trace.
    pub(super) max_rows: usize,
}

impl View<'_> {
    pub(super) const fn new(max_rows: usize) -> Self {
        Self { among: None, report: None, only: None, max_rows }
    }
}

/// Traces one below the other.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) sections: Vec<Section<'a>>,
    /// The axis that the traces share.
    pub(super) axis: Axis,
    /// Services by their order of appearance.
    pub(super) services: Vec<&'a str>,
    ranks: HashMap<&'a str, usize>,
}

/// One trace with its rows.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) trace: &'a Trace,
    among: Option<&'a Traces>,
    /// `true` if every exported trace that this one links to is in `among`.
    complete: bool,
    /// The findings of the check; `None` if the trace was not checked.
    pub(super) findings: Option<&'a [Finding]>,
    by_span: HashMap<SpanId, Vec<&'a Finding>>,
    /// Spans of other traces, by the span of this trace they link to.
    incoming: HashMap<SpanId, Vec<&'a Span>>,
    pub(super) rows: Vec<Row<'a>>,
    /// The number of spans that did not fit.
    pub(super) left_out: usize,
}

impl<'a> Layout<'a> {
    pub(super) fn of(traces: &[&'a Trace], view: &View<'a>) -> Self {
        let sections: Vec<Section<'_>> = traces.iter().map(|trace| Section::of(trace, view)).collect();
        let axis = Axis::of(&sections);
        let (mut services, mut ranks) = (Vec::new(), HashMap::new());
        for service in traces.iter().flat_map(|trace| trace.services()) {
            ranks.entry(service).or_insert_with(|| {
                services.push(service);
                services.len() - 1
            });
        }
        Self { sections, axis, services, ranks }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row<'a>> {
        self.sections.iter().flat_map(|section| &section.rows)
    }

    /// Returns the position of a service, which determines its colour.
    pub(super) fn rank(&self, service: &str) -> usize {
        self.ranks.get(service).copied().unwrap_or(0)
    }

    /// Returns `true` if the span belongs to one of the traces.
    pub(super) fn contains(&self, span: SpanRef) -> bool {
        let section = self.sections.iter().find(|section| section.trace.id() == span.trace_id);
        section.is_some_and(|section| section.trace.span(span.span_id).is_some())
    }
}

impl<'a> Section<'a> {
    fn of(trace: &'a Trace, view: &View<'a>) -> Self {
        let (id, among) = (trace.id(), view.among);
        let complete = view.only.is_none_or(|only| only == id);
        let findings = view.report.filter(|_| complete).map(|report| report.of(id));
        let (mut by_span, mut incoming) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for finding in findings.unwrap_or_default() {
            by_span.entry(finding.span).or_default().push(finding);
        }
        let others = || among.into_iter().flatten().filter(|other| other.id() != id);
        for span in others().flat_map(Trace::spans) {
            for link in span.links.iter().filter(|link| link.target.trace_id == id) {
                incoming.entry(link.target.span_id).or_default().push(span);
            }
        }
        let waits = Waits::of(trace, others());
        let mut section = Self {
            trace,
            among,
            complete,
            findings,
            by_span,
            incoming,
            rows: Vec::new(),
            left_out: trace.spans().len(),
        };
        for place in tree::walk(trace) {
            if section.rows.len() >= view.max_rows {
                break;
            }
            let span = &trace.spans()[place.position];
            let work = Body::Span(Work::new(span, waits.attempt(span)));
            let notes = section.notes(span).into_iter().map(Body::Note);
            let bodies = waits.before(span).map(Body::Wait).into_iter().chain([work]).chain(notes);
            let row = |body| Row { depth: place.depth, lines: place.lines, children: place.children, body };
            section.rows.extend(bodies.map(row));
            section.left_out -= 1;
        }
        section
    }

    /// Returns the axis of this trace alone.
    pub(super) fn axis(&self) -> Axis {
        Axis::of(std::slice::from_ref(self))
    }

    pub(super) fn findings(&self, span: &Span) -> &[&'a Finding] {
        self.by_span.get(&span.span_id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the spans of other traces that link to `span`.
    pub(super) fn incoming(&self, span: &Span) -> &[&'a Span] {
        self.incoming.get(&span.span_id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the span that is referred to, if it is known.
    pub(super) fn resolve(&self, target: SpanRef) -> Option<&'a Span> {
        if target.trace_id == self.trace.id() {
            return self.trace.span(target.span_id);
        }
        self.among.and_then(|traces| traces.span(target))
    }

    /// Returns the part of the trace's time when at least one message was in a queue, in
    /// nanoseconds.
    pub(super) fn queued(&self) -> u64 {
        let (start, end) = (self.trace.start(), self.trace.end());
        let waits = self.rows.iter().filter_map(|row| match &row.body {
            Body::Wait(Wait { bar, .. }) if bar.kind == BarKind::Queue => Some((bar.from.max(start), bar.to.min(end))),
            _ => None,
        });
        let mut waits: Vec<(u64, u64)> = waits.collect();
        waits.sort_unstable();
        let (mut total, mut until) = (0, 0);
        for (from, to) in waits {
            total += to.saturating_sub(from.max(until));
            until = until.max(to);
        }
        total
    }
}
