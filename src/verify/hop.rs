//! Ways through a queue: which send led to which processing, and how long the message waited in
//! between.

use std::collections::HashMap;
use std::time::Duration;

use super::id::SpanRef;
use super::messaging::queue_duration;
use super::resolve::Resolver;
use super::span::Span;
use super::trace::Trace;

/// One delivery of one message: from the span that sent it to the span that processed it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Hop<'a> {
    /// The span whose context the message carried; `None` when it was not exported.
    pub creation: Option<&'a Span>,
    /// The span that put the message into this queue: the creation itself, or a later one that sent
    /// the message on (batch, forward, dead letter). `None` when it was not exported.
    pub send: Option<&'a Span>,
    /// The span that processed it.
    pub process: &'a Span,
    /// Which delivery of the message to this consumer group it was, from 1: as the process span
    /// says, else counted.
    pub attempt: u32,
    /// The processing of the previous delivery from the same queue, for one that came back without
    /// being sent anew.
    pub previous: Option<&'a Span>,
    /// How long the message waited.
    pub queue: Duration,
    /// Whether the consumer measured the wait ([`QUEUE_DURATION`](crate::span::QUEUE_DURATION), on the process span or,
    /// for one of several messages, on its link). Otherwise it is the time from the end of the send (or of the previous
    /// delivery) to the start of the processing, at least zero: too short by the time the confirmation took, and subject
    /// to the clocks of two machines.
    pub measured: bool,
}

impl<'a> Hop<'a> {
    /// The topic the message was read from.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.process.destination()
    }

    /// Whether the broker delivered the message again from the same queue.
    #[must_use]
    pub const fn is_redelivery(&self) -> bool {
        self.previous.is_some()
    }
}

/// What counts deliveries: the message, the leg of its way, the topic, and the group that reads it.
type Series<'a> = (SpanRef, SpanRef, &'a str, Option<&'a str>);

/// The hops that end in `trace`, by the start of their process spans.
pub(super) fn into<'a>(trace: &'a Trace, resolver: &Resolver<'a>) -> Vec<Hop<'a>> {
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
            hops.push(Hop {
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

/// A message of unknown origin still tells how long it waited, when it bore a timestamp.
fn from_nowhere(process: &Span) -> Option<Hop<'_>> {
    let queue = queue_duration(&process.attributes)?;
    let attempt = process.attempt().unwrap_or(1);
    Some(Hop { creation: None, send: None, process, attempt, previous: None, queue, measured: true })
}

/// The wait that the consumer measured. In a batch only the links can say it: the span's own value is
/// not about one message.
fn measured(process: &Span, creation: &Span, alone: bool) -> Option<Duration> {
    let link = process.links.iter().find(|link| link.target == creation.reference());
    let on_link = link.and_then(|link| queue_duration(&link.attributes));
    on_link.or_else(|| queue_duration(&process.attributes).filter(|_| alone))
}
