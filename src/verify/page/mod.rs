//! A trace for the browser.

mod data;
mod details;
mod row;
mod section;
mod sheet;

use std::fmt;

use self::sheet::Sheet;
use super::check::TraceReport;
use super::layout::View;
use super::trace::{Trace, Traces};

/// A trace as an interactive HTML document; print it with its [`Display`](fmt::Display).
///
/// It shows the same as the [`Waterfall`](super::Waterfall), including **the row for the time in
/// the queue**, and the attributes, events and links of each span beside it. Spans can be searched
/// and folded, the time axis zoomed, and links followed to the [other traces](Self::within). All of
/// this also works by keyboard (`?` lists the keys) and with a screen reader (a tree grid).
///
/// The document is one self-contained file. It makes no network requests (and forbids itself any),
/// works from a disk or as a build artifact, and is light or dark as the reader prefers. It shows
/// the waterfall even if scripts are turned off. Names and values may come from any source: they
/// are shown as text, whatever they contain. The document contains all attributes of the spans, so
/// share it only with people who may read those.
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
    view: View<'a>,
    title: Option<&'a str>,
    remarks: Vec<Remark<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Remark<'a> {
    good: bool,
    text: &'a str,
}

impl<'a> Page<'a> {
    /// Creates a page of one trace, of at most 20,000 rows.
    #[must_use]
    pub const fn new(trace: &'a Trace) -> Self {
        // Only the link targets of this trace were read, so it is unknown whether others are whole.
        let view = View { only: Some(trace.id()), ..View::new(20_000) };
        Self { trace, view, title: None, remarks: Vec::new() }
    }

    /// Also shows those of these traces that link to this one, or that this one links to, each on
    /// its own axis.
    ///
    /// ```
    /// use traced_broker::verify::{Attributes, Link, Page, Span, SpanId, TraceId, Traces};
    ///
    /// let send = Span::new(TraceId::new(1), SpanId::new(1), "send reminders");
    /// let mut process = Span::new(TraceId::new(2), SpanId::new(2), "process reminders");
    /// process.links.push(Link { target: send.reference(), attributes: Attributes::default() });
    ///
    /// let traces = Traces::from_iter([send, process]);
    /// let trace = traces.get(TraceId::new(1)).unwrap();
    /// assert!(Page::new(trace).within(&traces).to_string().contains("process reminders"));
    /// assert!(!Page::new(trace).to_string().contains("process reminders"));
    /// ```
    #[must_use]
    pub const fn within(mut self, traces: &'a Traces) -> Self {
        self.view.among = Some(traces);
        self
    }

    /// Shows whether the trace is whole, and the findings of the check.
    #[must_use]
    pub const fn report(mut self, report: &'a TraceReport) -> Self {
        self.view.report = Some(report);
        self
    }

    /// Sets the heading; the name of the first span by default.
    #[must_use]
    pub const fn title(mut self, title: &'a str) -> Self {
        self.title = Some(title);
        self
    }

    /// Adds a remark below the title, marked good or bad; line breaks are kept.
    ///
    /// ```
    /// use traced_broker::verify::{Page, Span, SpanId, TraceId, Traces};
    ///
    /// let span = Span::new(TraceId::new(1), SpanId::new(1), "POST /orders");
    /// let traces = Traces::from_iter([span]);
    /// let page = Page::new(traces.iter().next().unwrap()).remark(false, "slower than 2 s");
    /// assert!(page.to_string().contains("<p class=\"remark bad\">slower than 2 s</p>"));
    /// ```
    #[must_use]
    pub fn remark(mut self, good: bool, text: &'a str) -> Self {
        self.remarks.push(Remark { good, text });
        self
    }

    /// Sets the maximum number of rows of each trace; the number of spans left out is stated.
    #[must_use]
    pub const fn max_rows(mut self, rows: usize) -> Self {
        self.view.max_rows = rows;
        self
    }
}

impl fmt::Display for Page<'_> {
    /// Writes a whole HTML document, with a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Sheet::of(self).write())
    }
}
