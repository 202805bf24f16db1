//! Traces drawn for documents.

mod arrows;
mod bars;
mod canvas;
mod scene;
mod sheet;

use std::fmt;

use self::sheet::Sheet;
use super::check::TraceReport;
use super::layout::{Layout, View};
use super::trace::{Trace, Traces};

/// A drawing of traces as an SVG document; print it with its [`Display`](fmt::Display).
///
/// As in the [`Waterfall`](super::Waterfall), spans form a tree beside a common time axis, and
/// **the time a message spent in the queue has its own row**, hatched, between the send and the
/// processing. Bars have the colour of their service. A link to anything except the context that a
/// span continues is a dashed arrow. It runs from one trace to another if both [are in the
/// picture](Self::and). Failures are marked, and the findings of [`check`](super::check()) are
/// listed below.
///
/// The document is self-contained, without external fonts or scripts. It is light or dark as the
/// reader prefers (`prefers-color-scheme`), and has a title and a description for screen readers.
/// Attributes of its elements (`data-span`, `data-parent`, `data-links`) state what was drawn.
/// Names may come from any source: they are shown as text, whatever they contain.
///
/// ```
/// use traced_broker::verify::{Kind, Picture, Span, SpanId, TraceId, Traces};
///
/// let mut span = Span::new(TraceId::new(1), SpanId::new(2), "POST /orders <script>");
/// (span.kind, span.start, span.end) = (Kind::Server, 1_000, 9_000);
/// let traces = Traces::from_iter([span]);
/// let svg = Picture::new(traces.iter().next().unwrap()).to_string();
/// assert!(svg.starts_with("<svg ") && svg.contains("POST /orders &lt;script&gt;"));
/// ```
#[derive(Clone, Debug)]
pub struct Picture<'a> {
    traces: Vec<&'a Trace>,
    view: View<'a>,
    title: Option<&'a str>,
}

impl<'a> Picture<'a> {
    /// Creates a picture of one trace, of at most 200 rows.
    #[must_use]
    pub fn new(trace: &'a Trace) -> Self {
        Self { traces: vec![trace], view: View::new(200), title: None }
    }

    /// Adds this trace below the others, on the same axis.
    ///
    /// ```
    /// use traced_broker::verify::{Attributes, Kind, Link, Picture, Span, SpanId, TraceId, Traces};
    ///
    /// let mut send = Span::new(TraceId::new(1), SpanId::new(1), "send reminders");
    /// (send.kind, send.start, send.end) = (Kind::Producer, 1_000, 2_000);
    /// let mut process = Span::new(TraceId::new(2), SpanId::new(2), "process reminders");
    /// (process.kind, process.start, process.end) = (Kind::Consumer, 5_000, 9_000);
    /// process.links.push(Link { target: send.reference(), attributes: Attributes::default() });
    ///
    /// let traces = Traces::from_iter([send, process]);
    /// let [first, second] = [1, 2].map(|id| traces.get(TraceId::new(id)).unwrap());
    /// let svg = Picture::new(first).and(second).within(&traces).to_string();
    /// assert!(svg.contains("<path class=\"link\""));
    /// ```
    #[must_use]
    pub fn and(mut self, trace: &'a Trace) -> Self {
        self.traces.push(trace);
        self
    }

    /// Uses these traces to find the senders of messages, and to name link targets in them.
    #[must_use]
    pub fn within(mut self, traces: &'a Traces) -> Self {
        self.view.among = Some(traces);
        self
    }

    /// Shows whether the traces are whole, and the findings of the check.
    ///
    /// ```
    /// use traced_broker::verify::{Picture, Span, SpanId, TraceId, Traces, check};
    ///
    /// let mut open = Span::new(TraceId::new(1), SpanId::new(1), "POST /orders");
    /// open.start = 1_000; // never ended
    /// let traces = Traces::from_iter([open]);
    /// let report = check(&traces);
    /// let svg = Picture::new(traces.iter().next().unwrap()).report(&report).to_string();
    /// assert!(svg.contains("✗ broken") && svg.contains("never finished"));
    /// ```
    #[must_use]
    pub fn report(mut self, report: &'a TraceReport) -> Self {
        self.view.report = Some(report);
        self
    }

    /// Sets the heading; the name of the first span by default.
    #[must_use]
    pub fn title(mut self, title: &'a str) -> Self {
        self.title = Some(title);
        self
    }

    /// Sets the maximum number of rows of each trace; the number of spans left out is stated.
    #[must_use]
    pub fn max_rows(mut self, rows: usize) -> Self {
        self.view.max_rows = rows;
        self
    }
}

impl fmt::Display for Picture<'_> {
    /// Writes one `svg` element, with a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Sheet::of(self, &Layout::of(&self.traces, &self.view)).draw())
    }
}
