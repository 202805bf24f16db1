//! What can be wrong with a trace.

use std::fmt;

use crate::verify::id::{SpanId, TraceId};
use crate::verify::span::Span;

/// One thing that is wrong with one span.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What sort of thing.
    pub kind: FindingKind,
    /// The trace it breaks.
    pub trace: TraceId,
    /// The span it shows on.
    pub span: SpanId,
    /// What is wrong and what likely caused it, in a sentence that stands without the other fields.
    pub message: String,
}

/// The sorts of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// The parent is no exported span.
    MissingParent,
    /// A link leads to no exported span.
    MissingLink,
    /// One of several roots of one trace.
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
    /// A process span is tied to no message's sender at all.
    NoContext,
    /// A process span is tied to spans, but to none that sends or creates a message.
    WrongContext,
    /// A process span is a child of the span that sent its message, but has no link to it.
    NoCreationLink,
    /// Processing started before sending did.
    ProcessedBeforeSent,
    /// A process span has no length.
    EmptyProcess,
    /// A child in the same service starts outside its process span.
    OutsideProcess,
}

impl FindingKind {
    /// A few words for it, as in a table or beside a span.
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

/// A span as messages name it.
pub(super) fn named(span: &Span) -> String {
    format!("`{}` ({})", span.name, span.service)
}
