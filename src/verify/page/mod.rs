//! A trace for the browser.

mod details;
mod row;
mod section;
mod sheet;

use std::fmt;

use self::sheet::Sheet;
use super::check::Report;
use super::trace::{Trace, Traces};

/// A trace as an HTML document to look around in; print it with its [`Display`](fmt::Display).
///
/// It shows what the [`Waterfall`](super::Waterfall) does, **the time in the queue as a row of its own** included, and each span's
/// attributes, events and links beside it. Spans can be searched and folded, the time axis zoomed, links followed to the traces
/// [at hand](Self::within), all by keyboard too (`?` lists the keys) and with a screen reader (a tree grid).
///
/// The document is one file that needs nothing else: it asks nothing of a network (and forbids itself to), works from a disk or as the
/// artifact of a build, is light or dark as the reader prefers, and shows the waterfall even where scripts are turned off. Names
/// and values come from anywhere: they are shown as text, whatever they hold. It holds all attributes of the spans: who may read
/// those may read it.
///
/// ```
/// use traced_broker::verify::{Kind, Page, Span, SpanId, TraceId, Traces};
///
/// let mut span = Span::new(TraceId::new(1), SpanId::new(2), "POST /orders <script>");
/// (span.kind, span.start, span.end) = (Kind::Server, 1_000, 9_000);
/// let traces = Traces::from_iter([span]);
/// let html = Page::new(traces.iter().next().unwrap()).to_string();
/// assert!(html.starts_with("<!doctype html>") && html.contains("POST /orders &lt;script&gt;"));
/// ```
#[derive(Clone, Debug)]
pub struct Page<'a> {
    trace: &'a Trace,
    among: Option<&'a Traces>,
    report: Option<&'a Report>,
    title: Option<&'a str>,
    remarks: Vec<Remark<'a>>,
    max_rows: usize,
}

#[derive(Clone, Copy, Debug)]
struct Remark<'a> {
    good: bool,
    text: &'a str,
}

impl<'a> Page<'a> {
    /// A page of one trace, of at most 20,000 rows.
    #[must_use]
    pub const fn new(trace: &'a Trace) -> Self {
        Self { trace, among: None, report: None, title: None, remarks: Vec::new(), max_rows: 20_000 }
    }

    /// Also shows those of these traces that link to this one, or that this one links to, each on an axis of its own.
    #[must_use]
    pub const fn within(mut self, traces: &'a Traces) -> Self {
        self.among = Some(traces);
        self
    }

    /// Says whether the trace is whole, and shows what the check found wrong with it.
    #[must_use]
    pub const fn report(mut self, report: &'a Report) -> Self {
        self.report = Some(report);
        self
    }

    /// What stands above; without it the name of the first span.
    #[must_use]
    pub const fn title(mut self, title: &'a str) -> Self {
        self.title = Some(title);
        self
    }

    /// Adds a judgement of your own below the title, good or bad; line breaks are kept.
    #[must_use]
    pub fn remark(mut self, good: bool, text: &'a str) -> Self {
        self.remarks.push(Remark { good, text });
        self
    }

    /// How many rows to show of each trace; the number of spans left out is stated.
    #[must_use]
    pub const fn max_rows(mut self, rows: usize) -> Self {
        self.max_rows = rows;
        self
    }
}

impl fmt::Display for Page<'_> {
    /// A whole HTML document, with a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Sheet::of(self).write())
    }
}
