//! The places where a trace broke, and the likely causes.

use std::collections::HashSet;
use std::fmt;

use traced_broker::verify::{Operation, QueueHop, Span, SpanId, Trace, TraceId};

/// A place where a trace broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Break {
    /// The last span before the break; `None` if unknown.
    pub(super) last_good: Option<SpanSummary>,
    /// Descriptions of the missing parts.
    pub(super) missing: Vec<String>,
    /// The possible causes, most likely first.
    pub(super) causes: Vec<Cause>,
    /// The span that processed the message in another trace, if it was searched for and found.
    pub(super) stray: Option<Stray>,
}

/// A span in messages to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpanSummary {
    pub(super) span: SpanId,
    pub(super) name: String,
    pub(super) service: String,
}

/// A process span that began a new trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stray {
    pub(super) trace: TraceId,
    pub(super) span: SpanSummary,
}

/// The cause of a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The send failed.
    SendFailed,
    /// The message was not sent.
    NotReached,
    /// The message had no context.
    NoHeader,
    /// The message lost its context.
    HeaderDropped,
    /// The consumer did not extract the context.
    NotExtracted,
    /// The message had the context of another span than the one that sent it.
    WrongSpan,
    /// The span was not sampled.
    SampledAway,
    /// The span was recorded but not exported.
    ExporterDropped,
    /// The span has not arrived yet.
    NotArrived,
}

/// The possible causes if a span exists but is not in the backend.
pub(super) const ABSENT: [Cause; 3] = [Cause::SampledAway, Cause::ExporterDropped, Cause::NotArrived];
/// The possible causes if the process span of a message does not refer to its sender.
pub(super) const SEVERED: [Cause; 3] = [Cause::NoHeader, Cause::HeaderDropped, Cause::NotExtracted];

impl Cause {
    /// Returns the name in the JSON result.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::SendFailed => "send_failed",
            Self::NotReached => "not_reached",
            Self::NoHeader => "no_header",
            Self::HeaderDropped => "header_dropped",
            Self::NotExtracted => "not_extracted",
            Self::WrongSpan => "wrong_span",
            Self::SampledAway => "sampled_away",
            Self::ExporterDropped => "exporter_dropped",
            Self::NotArrived => "not_arrived",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SendFailed => "the send failed, so the message never reached the queue",
            Self::NotReached => "the service did not send it, or does not trace its sends",
            Self::NoHeader => {
                "the producer wrote no context header, or an invalid one, so the consumer began a new trace"
            }
            Self::HeaderDropped => "the header was dropped at the broker, or by a component that copies messages there",
            Self::NotExtracted => "the consumer did not extract the context from the message",
            Self::WrongSpan => "the producer wrote the context of a span that it never exported",
            Self::SampledAway => "the span was sampled away, in the service or in the Collector",
            Self::ExporterDropped => "the exporter dropped the span: its queue was full, or its process ended early",
            Self::NotArrived => {
                "it has not arrived yet: the message still waits, the span has not ended, or its export is under way"
            }
        })
    }
}

impl SpanSummary {
    pub(super) fn new(span: &Span) -> Self {
        Self { span: span.span_id, name: span.name.clone(), service: span.service.to_string() }
    }
}

impl fmt::Display for SpanSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of {} (span {})", self.name, self.service, self.span)
    }
}

impl Break {
    /// Returns `true` if either the context or only the spans may be lost; a lost context leaves
    /// another trace.
    pub(super) fn is_doubtful(&self) -> bool {
        let has = |causes: &[Cause]| causes.iter().all(|cause| self.causes.contains(cause));
        has(&SEVERED) && has(&ABSENT)
    }

    /// Reorders the causes after a search for process spans in other traces.
    pub(super) fn learn(&mut self, strays: Vec<Stray>) {
        self.stray = strays.into_iter().next();
        self.causes = match self.stray {
            Some(_) => SEVERED.to_vec(),
            None => ABSENT.into_iter().chain(SEVERED).collect(),
        };
    }

    /// Returns `true` if the missing message was probably never sent.
    pub(super) fn is_unsent(&self) -> bool {
        self.causes.first() == Some(&Cause::NotReached)
    }

    /// Returns `true` if the break follows one of the unread messages, so that later messages were
    /// not sent.
    pub(super) fn is_after_one_of(&self, unread: &[&Span]) -> bool {
        let last_good = self.last_good.as_ref();
        last_good.is_some_and(|last| unread.iter().any(|send| send.span_id == last.span))
    }
}

/// Returns the send spans whose message was not processed by any span of the trace.
pub(super) fn unread<'a>(trace: &'a Trace, hops: &[QueueHop<'_>]) -> Vec<&'a Span> {
    let read = hops.iter().flat_map(|hop| [hop.creation, hop.send]).flatten().map(Span::reference);
    let read: HashSet<_> = read.collect();
    let sends = trace.spans().iter().filter(|span| span.role() == Some(Operation::Send));
    sends.filter(|span| !read.contains(&span.reference())).collect()
}

/// Returns `true` if a consumer of `topic` may receive the message.
pub(super) fn leads_to(send: &Span, topic: &str) -> bool {
    let to = send.destination();
    // A consumer on RabbitMQ may append its queue to the destination of the producer.
    to == topic || topic.strip_prefix(to).is_some_and(|rest| !to.is_empty() && rest.starts_with(':'))
}
