//! A trace drawn for the terminal.

pub(super) mod axis;
mod head;
mod line;
pub(super) mod notes;
mod plan;
pub(super) mod rows;
mod sheet;
pub(super) mod waits;

use std::fmt;

use self::sheet::Sheet;
use super::check::{Finding, Report};
use super::trace::{Trace, Traces};

/// Fewer columns than this are drawn as this many.
const MIN_WIDTH: usize = 40;

/// Draws a trace as a tree of spans beside a common time axis; print it with its [`Display`](fmt::Display).
///
/// Every span has a bar in the colour of its service. **The time a message spent in the queue is a row of its own**
/// (`┊ in queue orders`, a shaded bar) between the send and the processing, as is the wait before a redelivery
/// (`┊ retry of orders`). A time in the queue that nobody measured, and that is only the gap between two spans, is marked
/// `~`. Below a span stand its error, what it links to besides the context it continues, and what
/// [`check`](super::check()) found.
///
/// No line is longer than the width asked for: what does not fit ends in `…`. Names are shown
/// without control characters, so that no span can change the terminal.
///
/// ```no_run
/// # let (traces, report) = (traced_broker::verify::Traces::default(), traced_broker::verify::Report::default());
/// use traced_broker::verify::Waterfall;
///
/// for trace in &traces {
///     println!("{}", Waterfall::new(trace).within(&traces).report(&report).colour(true));
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Waterfall<'a> {
    trace: &'a Trace,
    traces: Option<&'a Traces>,
    /// Whether what this trace links to is among them, if it was exported at all.
    complete: bool,
    findings: Option<&'a [Finding]>,
    width: usize,
    colour: bool,
    ascii: bool,
    max_rows: usize,
}

impl<'a> Waterfall<'a> {
    /// A drawing 100 columns wide, without colour, of at most 500 rows.
    #[must_use]
    pub const fn new(trace: &'a Trace) -> Self {
        Self {
            trace,
            traces: None,
            complete: true,
            findings: None,
            width: 100,
            colour: false,
            ascii: false,
            max_rows: 500,
        }
    }

    /// Also looks at these traces, to name what is linked in them and to show what links here.
    #[must_use]
    pub const fn within(mut self, traces: &'a Traces) -> Self {
        self.traces = Some(traces);
        self
    }

    /// Of what this trace links to some may not be at hand, so that nothing is said about what is not.
    pub(super) const fn incomplete(mut self) -> Self {
        self.complete = false;
        self
    }

    /// Says whether the trace is whole, and shows what the check found wrong with it.
    #[must_use]
    pub fn report(mut self, report: &'a Report) -> Self {
        self.findings = Some(report.of(self.trace.id()));
        self
    }

    /// The columns to draw on; at least 40.
    #[must_use]
    pub const fn width(mut self, columns: usize) -> Self {
        self.width = if columns < MIN_WIDTH { MIN_WIDTH } else { columns };
        self
    }

    /// Whether to use the terminal's sixteen colours. Without them nothing but colour is missing.
    #[must_use]
    pub const fn colour(mut self, colour: bool) -> Self {
        self.colour = colour;
        self
    }

    /// Whether to use ASCII characters only, for terminals and logs without Unicode; names in other
    /// scripts become `?`.
    #[must_use]
    pub const fn ascii(mut self, ascii: bool) -> Self {
        self.ascii = ascii;
        self
    }

    /// How many rows to draw of a long trace; the number of spans left out is stated.
    #[must_use]
    pub const fn max_rows(mut self, rows: usize) -> Self {
        self.max_rows = rows;
        self
    }
}

impl fmt::Display for Waterfall<'_> {
    /// Lines without trailing white space, separated by line breaks; no line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Sheet::of(self).lines().join("\n"))
    }
}
