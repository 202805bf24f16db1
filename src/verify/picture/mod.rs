//! Traces drawn for documents.

mod arrows;
pub(super) mod axis;
mod bars;
mod canvas;
mod layout;
mod sheet;

use std::fmt;

use self::sheet::Sheet;
use super::check::Report;
use super::trace::{Trace, Traces};

/// Draws traces as a picture of their own, an SVG document; print it with its [`Display`](fmt::Display).
///
/// As in the [`Waterfall`](super::Waterfall), spans stand in a tree beside a common time axis, and **the time a message spent in
/// the queue is a row of its own**, hatched, between the send and the processing. Bars have the colour of their service. A link
/// to anything but the context that a span continues is a dashed arrow; it runs from one trace to another where both
/// [are in the picture](Self::and). Failures are marked, and below stands what [`check`](super::check()) found.
///
/// The document needs nothing else: neither fonts nor scripts. It is light or dark as the reader prefers (`prefers-color-scheme`), has
/// a title and a description for those who do not see it, and says in attributes of its elements (`data-span`, `data-parent`,
/// `data-links`) what was drawn. Names come from anywhere: they are shown as text, whatever they hold.
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
    among: Option<&'a Traces>,
    report: Option<&'a Report>,
    title: Option<&'a str>,
    max_rows: usize,
}

impl<'a> Picture<'a> {
    /// A picture of one trace, of at most 200 rows.
    #[must_use]
    pub fn new(trace: &'a Trace) -> Self {
        Self { traces: vec![trace], among: None, report: None, title: None, max_rows: 200 }
    }

    /// Draws this trace below those that are there, on the same axis.
    #[must_use]
    pub fn and(mut self, trace: &'a Trace) -> Self {
        self.traces.push(trace);
        self
    }

    /// Also looks at these traces, to find where messages were sent and to name what is linked in them.
    #[must_use]
    pub fn within(mut self, traces: &'a Traces) -> Self {
        self.among = Some(traces);
        self
    }

    /// Says whether the traces are whole, and shows what the check found wrong with them.
    #[must_use]
    pub fn report(mut self, report: &'a Report) -> Self {
        self.report = Some(report);
        self
    }

    /// What stands above; without it the name of the first span.
    #[must_use]
    pub fn title(mut self, title: &'a str) -> Self {
        self.title = Some(title);
        self
    }

    /// How many rows to draw of each trace; the number of spans left out is stated.
    #[must_use]
    pub fn max_rows(mut self, rows: usize) -> Self {
        self.max_rows = rows;
        self
    }
}

impl fmt::Display for Picture<'_> {
    /// One `svg` element, with a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Sheet::of(self).draw())
    }
}
