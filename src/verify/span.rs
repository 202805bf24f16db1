//! One exported span, as a backend or a file of spans holds it.

use std::sync::Arc;

use super::attributes::Attributes;
use super::id::{SpanId, SpanRef, TraceId};

/// One exported span.
///
/// Times are nanoseconds since the Unix epoch, as in OTLP; zero means that the time is not known.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Span {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// The span it is a child of, in the same trace; `None` for a root.
    pub parent: Option<SpanId>,
    /// What it is tied to besides its parent, in any trace.
    pub links: Vec<Link>,
    /// How many links the SDK threw away because the span had too many (128 by default).
    pub dropped_links: u32,
    /// The name, such as `process orders`.
    pub name: String,
    /// The kind.
    pub kind: Kind,
    /// The resource attribute `service.name`.
    pub service: Arc<str>,
    /// When it started.
    pub start: u64,
    /// When it ended; zero for a span that never did.
    pub end: u64,
    /// How it ended.
    pub status: Status,
    /// The span's own attributes, without those of its resource and scope.
    pub attributes: Attributes,
    /// What was recorded on it along the way.
    pub events: Vec<Event>,
}

/// A tie from a span to another one, in the same trace or another.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The span linked to.
    pub target: SpanRef,
    /// Attributes of the link itself.
    pub attributes: Attributes,
}

/// Something that happened during a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When, in nanoseconds since the Unix epoch.
    pub time: u64,
    /// The name, `exception` for a recorded error.
    pub name: String,
    /// The attributes.
    pub attributes: Attributes,
}

/// The role a span plays between processes (OpenTelemetry trace API, "SpanKind").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Not given, or a kind unknown to this version.
    #[default]
    Unspecified,
    /// Work inside one process.
    Internal,
    /// Handles a request and answers it.
    Server,
    /// Makes a request and waits for the answer.
    Client,
    /// Hands over a message that is processed later.
    Producer,
    /// Processes a message that was handed over earlier.
    Consumer,
}

impl Kind {
    /// The kind in lower case, as people write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// How a span ended (OpenTelemetry trace API, "Set Status").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Nothing was said: the usual state of a success.
    #[default]
    Unset,
    /// Declared a success.
    Ok,
    /// Failed, with a message that may be empty.
    Error(String),
}

impl Span {
    /// A root span of kind internal with these ids and this name, in the service `unknown_service`,
    /// without times.
    ///
    /// For readers of other formats and for tests: set the public fields that matter afterwards.
    #[must_use]
    pub fn new(trace_id: TraceId, span_id: SpanId, name: impl Into<String>) -> Self {
        Self {
            trace_id,
            span_id,
            parent: None,
            links: Vec::new(),
            dropped_links: 0,
            name: name.into(),
            kind: Kind::Internal,
            service: Arc::from("unknown_service"),
            start: 0,
            end: 0,
            status: Status::Unset,
            attributes: Attributes::default(),
            events: Vec::new(),
        }
    }

    /// Where the span is to be found.
    #[must_use]
    pub const fn reference(&self) -> SpanRef {
        SpanRef { trace_id: self.trace_id, span_id: self.span_id }
    }

    /// The parent, named from anywhere.
    #[must_use]
    pub fn parent_reference(&self) -> Option<SpanRef> {
        self.parent.map(|span_id| SpanRef { trace_id: self.trace_id, span_id })
    }

    /// Its length in nanoseconds; zero when it never ended or ended before it started.
    #[must_use]
    pub const fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether the status says that it failed.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self.status, Status::Error(_))
    }
}
