//! A trace drawn for the terminal.

mod bar;
mod head;
mod line;
mod plan;
mod sheet;

use std::fmt;

use self::sheet::Sheet;
use super::check::TraceReport;
use super::layout::View;
use super::trace::{Trace, Traces};

/// Minimum width, in columns.
const MIN_WIDTH: usize = 40;

/// A drawing of a trace as a tree of spans beside a common time axis; print it with its
/// [`Display`](fmt::Display).
///
/// Every span has a bar in the colour of its service. **The time a message spent in the queue has
/// its own row** (`┊ in queue orders`, a shaded bar) between the send and the processing, as does
/// the wait before a redelivery (`┊ retry of orders`). If a time in the queue was not measured and
/// is only the gap between two spans, it is marked `~`. Below a span are its error, its links
/// except the one to the context it continues, and the findings of [`check`](super::check()).
///
/// No line is longer than the given width: text that does not fit ends in `…`. Names are shown
/// without control characters, so no span can change the terminal.
///
/// ```
/// use traced_broker::verify::{Attributes, Kind, Link, Span, SpanId, TraceId};
/// use traced_broker::verify::{Traces, Waterfall, check};
///
/// let mut send = Span::new(TraceId::new(1), SpanId::new(1), "send orders");
/// (send.kind, send.start, send.end) = (Kind::Producer, 1_000, 2_000);
/// let mut process = Span::new(TraceId::new(1), SpanId::new(2), "process orders");
/// (process.kind, process.start, process.end) = (Kind::Consumer, 5_000, 9_000);
/// process.parent = Some(send.span_id);
/// process.links.push(Link { target: send.reference(), attributes: Attributes::default() });
///
/// let traces = Traces::from_iter([send, process]);
/// let report = check(&traces);
/// for trace in &traces {
///     let drawing = Waterfall::new(trace).within(&traces).report(&report).width(72).to_string();
///     assert!(drawing.contains("✓ whole") && drawing.contains("┊ in queue orders"));
///     assert!(drawing.contains("~3.00 µs"));
///     assert!(drawing.lines().all(|line| line.chars().count() <= 72));
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Waterfall<'a> {
    trace: &'a Trace,
    view: View<'a>,
    width: usize,
    colour: bool,
    ascii: bool,
}

impl<'a> Waterfall<'a> {
    /// Creates a drawing 100 columns wide, without colour, of at most 500 rows.
    #[must_use]
    pub const fn new(trace: &'a Trace) -> Self {
        Self { trace, view: View::new(500), width: 100, colour: false, ascii: false }
    }

    /// Uses these traces to name link targets in them, and to show links from them.
    #[must_use]
    pub const fn within(mut self, traces: &'a Traces) -> Self {
        self.view.among = Some(traces);
        self
    }

    /// Shows whether the trace is whole, and the findings of the check.
    #[must_use]
    pub fn report(mut self, report: &'a TraceReport) -> Self {
        self.view.report = Some(report);
        self
    }

    /// Sets the width, in columns; at least 40.
    #[must_use]
    pub const fn width(mut self, columns: usize) -> Self {
        self.width = if columns < MIN_WIDTH { MIN_WIDTH } else { columns };
        self
    }

    /// Sets whether to use the terminal's sixteen colours; no information depends on them.
    #[must_use]
    pub const fn colour(mut self, colour: bool) -> Self {
        self.colour = colour;
        self
    }

    /// Sets whether to use ASCII characters only, for terminals and logs without Unicode.
    /// Characters of other scripts in names become `?`.
    ///
    /// ```
    /// use traced_broker::verify::{Span, SpanId, TraceId, Traces, Waterfall};
    ///
    /// let span = Span::new(TraceId::new(1), SpanId::new(1), "process Käufe");
    /// let traces = Traces::from_iter([span]);
    /// let drawing = Waterfall::new(traces.iter().next().unwrap()).ascii(true).to_string();
    /// assert!(drawing.is_ascii() && drawing.contains("process K?ufe"));
    /// ```
    #[must_use]
    pub const fn ascii(mut self, ascii: bool) -> Self {
        self.ascii = ascii;
        self
    }

    /// Sets the maximum number of rows; the number of spans left out is stated.
    ///
    /// ```
    /// use traced_broker::verify::{Span, SpanId, TraceId, Traces, Waterfall};
    ///
    /// let spans = (1..=5).map(|id| Span::new(TraceId::new(1), SpanId::new(id), "work"));
    /// let traces = Traces::from_iter(spans);
    /// let drawing = Waterfall::new(traces.iter().next().unwrap()).max_rows(2).to_string();
    /// assert!(drawing.ends_with("3 more spans not shown"));
    /// ```
    #[must_use]
    pub const fn max_rows(mut self, rows: usize) -> Self {
        self.view.max_rows = rows;
        self
    }
}

impl fmt::Display for Waterfall<'_> {
    /// Writes lines without trailing white space, separated by line breaks, with no line break at
    /// the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Sheet::of(self).lines().join("\n"))
    }
}
