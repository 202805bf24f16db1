//! The faults that break a trace.

use std::fmt;

use crate::verify::id::{SpanId, TraceId};
use crate::verify::span::Span;

/// A fault of one span.
///
/// ```
/// use traced_broker::verify::{FindingKind, Kind, Span, SpanId, TraceId, Traces, check};
///
/// let mut process = Span::new(TraceId::new(1), SpanId::new(2), "process orders");
/// (process.kind, process.start, process.end) = (Kind::Consumer, 5_000, 9_000);
///
/// let report = check(&Traces::from_iter([process]));
/// let finding = &report.findings()[0];
/// assert_eq!((finding.kind, finding.span), (FindingKind::NoContext, SpanId::new(2)));
/// assert_eq!(finding.kind.to_string(), "no context in the message");
/// assert!(finding.message.contains("the producer wrote no context header"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The kind of fault.
    pub kind: FindingKind,
    /// The trace that is broken.
    pub trace: TraceId,
    /// The span that shows the fault.
    pub span: SpanId,
    /// The fault and its likely cause, in a sentence that is clear without the other fields.
    pub message: String,
}

/// The kind of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// The parent was not exported.
    MissingParent,
    /// A link leads to a span that was not exported.
    MissingLink,
    /// An additional root of a trace that already has one.
    SeveralRoots,
    /// The span is its own ancestor.
    ParentCycle,
    /// Another span of the trace has the same id.
    DuplicateSpan,
    /// The SDK dropped links, or a batch has fewer links than messages.
    LostLinks,
    /// A start or end time is missing.
    Unfinished,
    /// The span ends before it starts.
    ReversedTimes,
    /// The kind does not fit `messaging.operation.type`.
    WrongKind,
    /// A process span has neither a parent nor a link, so its message has no known sender.
    NoContext,
    /// A process span has a parent or links, but none of these spans sends or creates a message.
    WrongContext,
    /// A process span is a child of the span that sent its message, but has no link to it.
    NoCreationLink,
    /// Processing started before the send.
    ProcessedBeforeSent,
    /// A process span has zero length.
    EmptyProcess,
    /// A child in the same service starts outside its process span.
    OutsideProcess,
}

impl FindingKind {
    /// Returns a short description, for a table or beside a span.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingParent => "parent not exported",
            Self::MissingLink => "link target not exported",
            Self::SeveralRoots => "another root in this trace",
            Self::ParentCycle => "its own ancestor",
            Self::DuplicateSpan => "span id used twice",
            Self::LostLinks => "links lost",
            Self::Unfinished => "never finished",
            Self::ReversedTimes => "ends before it starts",
            Self::WrongKind => "wrong kind",
            Self::NoContext => "no context in the message",
            Self::WrongContext => "context of a span that sent nothing",
            Self::NoCreationLink => "no link to what was sent",
            Self::ProcessedBeforeSent => "processed before it was sent",
            Self::EmptyProcess => "process span without length",
            Self::OutsideProcess => "outside its process span",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trace {}, span {}: {}: {}", self.trace, self.span, self.kind, self.message)
    }
}

impl Finding {
    pub(super) fn on(span: &Span, kind: FindingKind, message: String) -> Self {
        Self { kind, trace: span.trace_id, span: span.span_id, message }
    }
}

/// Formats a span for the messages of findings.
pub(super) fn named(span: &Span) -> String {
    format!("`{}` ({})", span.name, span.service)
}
