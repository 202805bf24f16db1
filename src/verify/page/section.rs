//! One trace of the page.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::Page;
use super::details::Details;
use super::row;
use crate::verify::check::Finding;
use crate::verify::id::{SpanId, SpanRef};
use crate::verify::latency::HumanDuration;
use crate::verify::picture::axis::Axis;
use crate::verify::span::Span;
use crate::verify::text::counted;
use crate::verify::trace::{Trace, Traces};
use crate::verify::waterfall::Waterfall;
use crate::verify::waterfall::notes::Mark;
use crate::verify::waterfall::rows::{self, Body, Row};

/// So many rows are skipped together by the browser while they are out of sight, which is what keeps long traces quick.
const CHUNK: usize = 100;

/// A trace with what is needed to write its rows.
#[derive(Debug)]
pub(super) struct Section<'a> {
    trace: &'a Trace,
    among: Option<&'a Traces>,
    services: &'a [&'a str],
    rows: Vec<Row<'a>>,
    left_out: usize,
    axis: Axis,
    /// In nanoseconds since the Unix epoch.
    start: u64,
    end: u64,
    findings: HashMap<SpanId, Vec<&'a Finding>>,
    /// What links to a span from other traces.
    incoming: HashMap<SpanRef, Vec<&'a Span>>,
    is_first: bool,
}

impl<'a> Section<'a> {
    pub(super) fn of(page: &Page<'a>, trace: &'a Trace, services: &'a [&'a str]) -> Self {
        let is_first = trace.id() == page.trace.id();
        let mut waterfall = Waterfall::new(trace).max_rows(page.max_rows);
        if let Some(traces) = page.among {
            waterfall = waterfall.within(traces);
        }
        let mut findings: HashMap<_, Vec<_>> = HashMap::new();
        // Only what the first links to was looked for, so that of the others it cannot be said whether they are whole.
        if !is_first {
            waterfall = waterfall.incomplete();
        } else if let Some(report) = page.report {
            waterfall = waterfall.report(report);
            report.of(trace.id()).iter().for_each(|finding| findings.entry(finding.span).or_default().push(finding));
        }
        let (rows, left_out) = rows::of(&waterfall);
        let axis = Axis::new(&[trace], rows.iter(), 0.0, 1.0);
        let (start, end) = axis.period();
        let incoming = incoming(trace, page.among);
        Self { trace, among: page.among, services, rows, left_out, axis, start, end, findings, incoming, is_first }
    }

    /// Adds the trace to the document, and the details of its rows.
    pub(super) fn write(&self, html: &mut String, details: &mut Vec<Value>) {
        let id = self.trace.id();
        let length = self.end.saturating_sub(self.start);
        let _ = writeln!(html, "<section id=\"t-{id}\" data-length=\"{length}\">");
        if !self.is_first {
            let duration = HumanDuration(self.trace.duration());
            let _ = writeln!(html, "<h2>linked trace <code>{id}</code> <small>{duration}</small></h2>");
        }
        html.push_str("<div class=\"ruler\" aria-hidden=\"true\"><span></span><div class=\"ticks\"></div></div>\n");
        html.push_str("<div class=\"tree\" role=\"treegrid\" aria-label=\"Spans\">\n");
        let details_of = Details { section: self };
        for rows in self.rows.chunks(CHUNK) {
            let _ = writeln!(html, "<div class=\"chunk\" role=\"rowgroup\" style=\"--rows:{}\">", rows.len());
            let mut above: Option<&Span> = None;
            for row in rows {
                if let Body::Span(span, _) = &row.body {
                    above = Some(span);
                }
                row::write(self, html, row, details.len(), above);
                details.push(details_of.of(row));
            }
            html.push_str("</div>\n");
        }
        html.push_str("</div>\n");
        if self.left_out > 0 {
            let _ = writeln!(html, "<p class=\"more\">{} not shown</p>", counted(self.left_out, "more span"));
        }
        html.push_str("</section>\n");
    }

    /// When the axis begins.
    pub(super) const fn start(&self) -> u64 {
        self.start
    }

    /// Where a time lies between the beginning and the end of the axis, from 0 to 1.
    pub(super) fn at(&self, time: u64) -> f64 {
        self.axis.x(time)
    }

    pub(super) fn since_start(&self, time: u64) -> HumanDuration {
        HumanDuration(Duration::from_nanos(time.saturating_sub(self.start)))
    }

    pub(super) fn colour(&self, service: &str) -> usize {
        self.services.iter().position(|known| *known == service).unwrap_or(0) % 6
    }

    pub(super) fn findings(&self, span: &Span) -> &[&'a Finding] {
        self.findings.get(&span.span_id).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn incoming(&self, span: &Span) -> &[&'a Span] {
        self.incoming.get(&span.reference()).map(Vec::as_slice).unwrap_or_default()
    }

    /// The span that is referred to, where it is at hand.
    pub(super) fn resolve(&self, target: SpanRef) -> Option<&'a Span> {
        if target.trace_id == self.trace.id() {
            return self.trace.span(target.span_id);
        }
        self.among.and_then(|traces| traces.span(target))
    }

    /// What a note about `span` leads to: the first such link.
    pub(super) fn target(&self, span: &Span, mark: Mark, trace: Option<crate::verify::TraceId>) -> Option<SpanRef> {
        let trace = trace.unwrap_or(self.trace.id());
        match mark {
            Mark::To => {
                let elsewhere = |target: &SpanRef| Some(*target) != span.parent_reference();
                let mut targets = span.links.iter().map(|link| link.target).filter(elsewhere);
                targets.find(|target| target.trace_id == trace && self.resolve(*target).is_some())
            }
            Mark::From => self.incoming(span).iter().map(|from| from.reference()).find(|from| from.trace_id == trace),
            Mark::Bad | Mark::Nowhere => None,
        }
    }
}

fn incoming<'a>(trace: &Trace, among: Option<&'a Traces>) -> HashMap<SpanRef, Vec<&'a Span>> {
    let mut incoming: HashMap<_, Vec<_>> = HashMap::new();
    let others = among.into_iter().flatten().filter(|other| other.id() != trace.id());
    for span in others.flat_map(Trace::spans) {
        for link in span.links.iter().filter(|link| link.target.trace_id == trace.id()) {
            incoming.entry(link.target).or_default().push(span);
        }
    }
    incoming
}
