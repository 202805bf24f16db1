//! Hops through a queue: pairs each processing with its send, and gives the time between them.

use std::collections::HashMap;
use std::time::Duration;

use super::id::SpanRef;
use super::messaging::queue_duration;
use super::resolve::Resolver;
use super::span::Span;
use super::trace::{Trace, Traces};

/// One delivery of one message: from the span that sent it to the span that processed it.
///
/// ```
/// use std::time::Duration;
/// use traced_broker::verify::{Attributes, Kind, Span, SpanId, TraceId, Traces, Value};
///
/// let mut send = Span::new(TraceId::new(1), SpanId::new(1), "send orders");
/// (send.kind, send.start, send.end) = (Kind::Producer, 1_000, 2_000);
/// let mut process = Span::new(TraceId::new(1), SpanId::new(2), "process orders");
/// (process.kind, process.start, process.end) = (Kind::Consumer, 5_000, 9_000);
/// process.parent = Some(send.span_id);
///
/// // Without a measurement, the wait is the gap between the two spans.
/// let traces = Traces::from_iter([send.clone(), process.clone()]);
/// let hop = traces.hops()[0];
/// assert_eq!((hop.queue, hop.measured), (Duration::from_nanos(3_000), false));
/// assert_eq!((hop.topic(), hop.attempt), ("orders", 1));
///
/// process.attributes =
///     Attributes::from_iter([("traced_broker.queue.duration", Value::Double(0.25))]);
/// let traces = Traces::from_iter([send, process]);
/// let hop = traces.hops()[0];
/// assert_eq!((hop.queue, hop.measured), (Duration::from_millis(250), true));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct QueueHop<'a> {
    /// The span whose context the message carried; `None` if it was not exported.
    pub creation: Option<&'a Span>,
    /// The span that put the message into this queue: the creation span itself, or a later span
    /// that passed the message on (batch, forward, dead letter). `None` if it was not exported.
    pub send: Option<&'a Span>,
    /// The span that processed it.
    pub process: &'a Span,
    /// The number of this delivery of the message to this consumer group, from 1: the one that the
    /// process span states, otherwise counted.
    pub attempt: u32,
    /// The processing of the previous delivery from the same queue, if the message was redelivered
    /// without being sent again.
    pub previous: Option<&'a Span>,
    /// The time the message waited in the queue.
    pub queue: Duration,
    /// `true` if the consumer measured the wait
    /// ([`QUEUE_DURATION`](crate::names::attribute::QUEUE_DURATION), on the process span or, for
    /// one of several messages, on its link). Otherwise the wait is the time from the end of the
    /// send (or of the previous delivery) to the start of the processing, and at least zero. That
    /// time is too short by the duration of the confirmation, and depends on the clocks of two
    /// machines.
    pub measured: bool,
}

impl<'a> QueueHop<'a> {
    /// Returns the topic the message was read from.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.process.destination()
    }

    /// Returns `true` if the broker redelivered the message from the same queue.
    #[must_use]
    pub const fn is_redelivery(&self) -> bool {
        self.previous.is_some()
    }
}

impl Trace {
    /// Returns every hop of a message through a queue into a process span of this trace, as far as
    /// this trace alone shows it.
    ///
    /// Only [`Traces::hops`] finds a message that was sent in another trace.
    #[must_use]
    pub fn hops(&self) -> Vec<QueueHop<'_>> {
        into(self, &Resolver::new([self]))
    }
}

impl Traces {
    /// Returns every hop of a message through a queue, across all the traces.
    ///
    /// ```
    /// use traced_broker::verify::{Attributes, Kind, Link, Span, SpanId, TraceId, Traces};
    ///
    /// let mut send = Span::new(TraceId::new(1), SpanId::new(1), "send reminders");
    /// (send.kind, send.start, send.end) = (Kind::Producer, 1_000, 2_000);
    /// // A delayed message is processed in its own trace, which links to the sender's.
    /// let mut process = Span::new(TraceId::new(2), SpanId::new(2), "process reminders");
    /// (process.kind, process.start, process.end) = (Kind::Consumer, 5_000, 9_000);
    /// process.links.push(Link { target: send.reference(), attributes: Attributes::default() });
    ///
    /// let traces = Traces::from_iter([send, process]);
    /// assert_eq!(traces.hops().len(), 1);
    /// assert!(traces.iter().all(|trace| trace.hops().is_empty()));
    /// ```
    #[must_use]
    pub fn hops(&self) -> Vec<QueueHop<'_>> {
        let resolver = Resolver::new(self);
        self.iter().flat_map(|trace| into(trace, &resolver)).collect()
    }
}

/// The key of a series of deliveries: the message, the leg of its route, the topic, and the
/// consumer group.
type Series<'a> = (SpanRef, SpanRef, &'a str, Option<&'a str>);

/// Returns the hops that end in `trace`, by the start of their process spans.
pub(super) fn into<'a>(trace: &'a Trace, resolver: &Resolver<'a>) -> Vec<QueueHop<'a>> {
    let mut hops = Vec::new();
    let mut last: HashMap<Series<'a>, &'a Span> = HashMap::new();
    let mut counts: HashMap<(SpanRef, &'a str, Option<&'a str>), u32> = HashMap::new();
    for process in trace.spans().iter().filter(|span| span.is_processing()) {
        let creations = resolver.creations(process);
        if creations.is_empty() {
            hops.extend(from_nowhere(process));
            continue;
        }
        let alone = creations.len() == 1;
        for creation in creations {
            let send = resolver.sender(creation, process);
            let (topic, group) = (process.destination(), process.group());
            let previous = last.insert((creation.reference(), send.reference(), topic, group), process);
            let count = counts.entry((creation.reference(), topic, group)).or_default();
            *count += 1;
            let measured = measured(process, creation, alone);
            let since = previous.unwrap_or(send).end;
            hops.push(QueueHop {
                creation: Some(creation),
                send: Some(send),
                process,
                attempt: process.attempt().unwrap_or(*count),
                previous,
                queue: measured.unwrap_or(Duration::from_nanos(process.start.saturating_sub(since))),
                measured: measured.is_some(),
            });
        }
    }
    hops
}

/// Returns the hop of a message of unknown origin, which has a queue time if it carried a
/// timestamp.
fn from_nowhere(process: &Span) -> Option<QueueHop<'_>> {
    let queue = queue_duration(&process.attributes)?;
    let attempt = process.attempt().unwrap_or(1);
    Some(QueueHop { creation: None, send: None, process, attempt, previous: None, queue, measured: true })
}

/// Returns the wait that the consumer measured. In a batch only the links can state it, because the
/// span's value is not about one message.
fn measured(process: &Span, creation: &Span, alone: bool) -> Option<Duration> {
    let link = process.links.iter().find(|link| link.target == creation.reference());
    let on_link = link.and_then(|link| queue_duration(&link.attributes));
    on_link.or_else(|| queue_duration(&process.attributes).filter(|_| alone))
}
