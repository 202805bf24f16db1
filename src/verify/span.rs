//! An exported span, as a backend or a file of spans contains it.

use std::sync::Arc;

use super::attributes::Attributes;
use super::id::{SpanId, SpanRef, TraceId};

/// An exported span.
///
/// Times are nanoseconds since the Unix epoch, as in OTLP; zero means that the time is unknown.
///
/// ```
/// use traced_broker::verify::{Attributes, Kind, Link, Span, SpanId, TraceId};
///
/// let mut send = Span::new(TraceId::new(1), SpanId::new(1), "send orders");
/// (send.kind, send.start, send.end) = (Kind::Producer, 1_000, 2_000);
/// let mut process = Span::new(TraceId::new(1), SpanId::new(2), "process orders");
/// (process.kind, process.start, process.end) = (Kind::Consumer, 5_000, 9_000);
/// process.parent = Some(send.span_id);
/// process.links.push(Link { target: send.reference(), attributes: Attributes::default() });
///
/// assert_eq!(process.parent_reference(), Some(send.reference()));
/// assert_eq!(process.duration(), 4_000);
/// process.end = 0; // never ended
/// assert_eq!(process.duration(), 0);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Span {
    /// The trace the span belongs to.
    pub trace_id: TraceId,
    /// The span's id within its trace.
    pub span_id: SpanId,
    /// The span's parent, in the same trace; `None` for a root.
    pub parent: Option<SpanId>,
    /// The links to other spans besides the parent, in any trace.
    pub links: Vec<Link>,
    /// The number of links the SDK dropped because the span had too many (128 by default).
    pub dropped_links: u32,
    /// The name, such as `process orders`.
    pub name: String,
    /// The kind.
    pub kind: Kind,
    /// The resource attribute `service.name`.
    pub service: Arc<str>,
    /// The start time.
    pub start: u64,
    /// The end time; zero for a span that never ended.
    pub end: u64,
    /// The status at the end of the span.
    pub status: Status,
    /// The span's own attributes, without those of its resource and scope.
    pub attributes: Attributes,
    /// The events recorded during the span.
    pub events: Vec<Event>,
}

/// A link from a span to another one, in the same trace or another.
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
    /// The time, in nanoseconds since the Unix epoch.
    pub time: u64,
    /// The name; `exception` for a recorded error.
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
    /// Returns the kind in lower case.
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

/// The status of a span (OpenTelemetry trace API, "Set Status").
///
/// ```
/// use traced_broker::verify::{Span, SpanId, Status, TraceId};
///
/// let mut span = Span::new(TraceId::new(1), SpanId::new(1), "process orders");
/// assert!(!span.is_error());
/// span.status = Status::Error("out of stock".to_owned());
/// assert!(span.is_error());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Not set, the usual state of a success.
    #[default]
    Unset,
    /// Declared a success.
    Ok,
    /// A failure, with a message that may be empty.
    Error(String),
}

impl Span {
    /// Creates a root span of kind internal with these ids and this name, in the service
    /// `unknown_service`, without times.
    ///
    /// Readers of other formats and tests set the public fields they need afterwards.
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

    /// Returns a reference to the span.
    #[must_use]
    pub const fn reference(&self) -> SpanRef {
        SpanRef { trace_id: self.trace_id, span_id: self.span_id }
    }

    /// Returns a reference to the parent, if there is one.
    #[must_use]
    pub fn parent_reference(&self) -> Option<SpanRef> {
        self.parent.map(|span_id| SpanRef { trace_id: self.trace_id, span_id })
    }

    /// Returns the length in nanoseconds; zero if the span never ended or ended before it started.
    #[must_use]
    pub const fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Returns `true` if the status is an error.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self.status, Status::Error(_))
    }
}
