//! The rows and their bars, as plain data.

use std::time::Duration;

use super::notes::Note;
use crate::verify::latency::HumanDuration;
use crate::verify::span::Span;

/// A row of a drawing, at its place in the tree.
#[derive(Debug)]
pub(in crate::verify) struct Row<'a> {
    /// The number of the span's ancestors.
    pub(in crate::verify) depth: usize,
    /// The bits that are set if siblings follow: bit 0 for the span itself, bit n for the ancestor
    /// n levels above it.
    pub(in crate::verify) lines: u64,
    /// `true` if children of the span follow.
    pub(in crate::verify) children: bool,
    pub(in crate::verify) body: Body<'a>,
}

#[derive(Debug)]
pub(in crate::verify) enum Body<'a> {
    Span(Work<'a>),
    /// The wait before the span.
    Wait(Wait<'a>),
    /// A note under the span.
    Note(Note<'a>),
}

/// A span with its bar.
#[derive(Clone, Copy, Debug)]
pub(in crate::verify) struct Work<'a> {
    pub(in crate::verify) span: &'a Span,
    /// The number of the delivery, for messages that were delivered more than once.
    pub(in crate::verify) attempt: Option<u32>,
    pub(in crate::verify) bar: Bar,
}

/// A wait before a process span.
#[derive(Clone, Copy, Debug)]
pub(in crate::verify) struct Wait<'a> {
    pub(in crate::verify) topic: &'a str,
    /// The number of messages that waited; of several the longest wait is shown.
    pub(in crate::verify) messages: usize,
    pub(in crate::verify) duration: Duration,
    /// `true` if the wait is not measured, and only as accurate as the clocks of the two spans.
    pub(in crate::verify) estimated: bool,
    pub(in crate::verify) bar: Bar,
}

/// A bar beside the axis, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(in crate::verify) struct Bar {
    pub(in crate::verify) kind: BarKind,
    pub(in crate::verify) from: u64,
    pub(in crate::verify) to: u64,
}

/// The meaning of a bar, which determines how it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) enum BarKind {
    /// A span with a length.
    Span,
    /// A span without a length, or one that ends before it starts.
    Instant,
    /// A span that never ended.
    Open,
    /// A message in the queue.
    Queue,
    /// A message waiting for its next delivery.
    Retry,
}

impl<'a> Work<'a> {
    pub(super) fn new(span: &'a Span, attempt: Option<u32>) -> Self {
        let (kind, to) = match span.end {
            0 => (BarKind::Open, u64::MAX),
            end if end > span.start => (BarKind::Span, end),
            _ => (BarKind::Instant, span.start),
        };
        Self { span, attempt, bar: Bar { kind, from: span.start, to } }
    }

    /// Returns `true` if the span hands over or handles messages.
    pub(in crate::verify) fn is_strong(&self) -> bool {
        self.span.is_producing() || self.span.is_processing()
    }

    /// Returns the time beside the bar.
    pub(in crate::verify) fn time(&self) -> String {
        match self.bar.kind {
            BarKind::Open => "never ended".to_owned(),
            _ => HumanDuration(Duration::from_nanos(self.span.duration())).to_string(),
        }
    }

    /// Returns the text beside the name: the attempt, if known, and the service.
    pub(in crate::verify) fn beside(&self) -> String {
        let attempt = self.attempt.map_or(String::new(), |attempt| format!("attempt {attempt} · "));
        format!("{attempt}{}", self.span.service)
    }
}

impl Wait<'_> {
    /// Returns the label of the row.
    pub(in crate::verify) fn label(&self) -> String {
        let what = if self.bar.kind == BarKind::Retry { "retry of" } else { "in queue" };
        match self.messages {
            1 => format!("{what} {}", self.topic),
            many => format!("{what} {} ×{many}", self.topic),
        }
    }

    /// Returns the time beside the bar, marked `~` if it is not measured.
    pub(in crate::verify) fn time(&self) -> String {
        format!("{}{}", if self.estimated { "~" } else { "" }, HumanDuration(self.duration))
    }
}
