//! The error of a test bed that did not come to rest.

use std::fmt;
use std::time::Duration;

use crate::verify::{Span, Trace, Traces, Waterfall, check};

/// Maximum number of traces that are drawn.
const MOST_PICTURES: usize = 3;

/// The error if not everything came to rest in time.
///
/// Its `Debug` is its `Display`, so that `unwrap` shows in words what is left, with the traces so
/// far.
pub struct Unsettled {
    patience: Duration,
    open: Vec<Span>,
    messages: Vec<String>,
    /// Boxed, because errors are moved.
    traces: Box<Traces>,
}

impl Unsettled {
    pub(super) fn new(patience: Duration, open: Vec<Span>, messages: Vec<String>, traces: Traces) -> Self {
        Self { patience, open, messages, traces: Box::new(traces) }
    }

    /// Returns the spans that had not ended.
    #[must_use]
    pub fn open_spans(&self) -> &[Span] {
        &self.open
    }

    /// Returns a sentence about the messages left, for each topic and group.
    #[must_use]
    pub fn messages(&self) -> &[String] {
        &self.messages
    }
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not settled within {:?}:", self.patience)?;
        for message in &self.messages {
            write!(f, "\n- {message}")?;
        }
        for span in &self.open {
            write!(f, "\n- the span `{}` ({}) has not ended", span.name, span.service)?;
        }
        let report = check(&self.traces);
        // Broken traces, including unfinished ones, come first.
        let mut traces: Vec<&Trace> = self.traces.iter().collect();
        traces.sort_by_key(|trace| report.of(trace.id()).is_empty());
        for trace in traces.into_iter().take(MOST_PICTURES) {
            write!(f, "\n\n{}", Waterfall::new(trace).within(&self.traces).report(&report))?;
        }
        match self.traces.len().saturating_sub(MOST_PICTURES) {
            0 => Ok(()),
            more => write!(f, "\n\nand {more} more traces"),
        }
    }
}

impl fmt::Debug for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Unsettled {}
