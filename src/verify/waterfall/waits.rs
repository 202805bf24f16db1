//! The time messages waited, as rows of the picture.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Waterfall;
use super::axis::Bar;
use crate::verify::hop::{self, Hop};
use crate::verify::resolve::Resolver;
use crate::verify::span::Span;

/// A wait before a process span.
#[derive(Clone, Copy, Debug)]
pub(in crate::verify) struct Wait<'a> {
    /// In the queue, or for a redelivery.
    pub(in crate::verify) kind: Bar,
    /// The topic.
    pub(in crate::verify) topic: &'a str,
    /// How many messages waited; of several the longest wait is shown.
    pub(in crate::verify) messages: usize,
    /// How long.
    pub(in crate::verify) duration: Duration,
    /// Whether that is only as good as the clocks of the two spans.
    pub(in crate::verify) estimated: bool,
    /// When it began, in nanoseconds since the Unix epoch.
    pub(in crate::verify) from: u64,
    /// When it was over.
    pub(in crate::verify) to: u64,
}

/// The hops into the spans of a trace.
#[derive(Debug)]
pub(super) struct Waits<'a> {
    by_process: HashMap<*const Span, Vec<Hop<'a>>>,
    repeated: HashSet<*const Span>,
}

impl<'a> Waits<'a> {
    pub(super) fn of(waterfall: &Waterfall<'a>) -> Self {
        let trace = waterfall.trace;
        let others = waterfall.traces.into_iter().flatten().filter(|other| other.id() != trace.id());
        let resolver = Resolver::new(std::iter::once(trace).chain(others));
        let hops = hop::into(trace, &resolver);
        let series = |hop: &Hop<'a>| (hop.creation.map(Span::reference), hop.topic(), hop.process.group());
        let retried: HashSet<_> = hops.iter().filter(|hop| hop.attempt > 1).map(series).collect();
        let (mut by_process, mut repeated) = (HashMap::<_, Vec<Hop<'_>>>::new(), HashSet::new());
        for hop in hops {
            let key = std::ptr::from_ref(hop.process);
            if retried.contains(&series(&hop)) {
                repeated.insert(key);
            }
            by_process.entry(key).or_default().push(hop);
        }
        Self { by_process, repeated }
    }

    /// The wait that ended when `span` began.
    pub(super) fn before(&self, span: &Span) -> Option<Wait<'a>> {
        let hops = self.by_process.get(&std::ptr::from_ref(span)).filter(|_| span.start > 0)?;
        let longest = hops.iter().max_by_key(|hop| hop.queue)?;
        let (topic, messages, to) = (longest.topic(), hops.len(), span.start);
        if let (Some(previous), 1) = (longest.previous, messages) {
            let from = previous.end.min(to);
            let duration = Duration::from_nanos(to - from);
            return Some(Wait { kind: Bar::Retry, topic, messages, duration, estimated: false, from, to });
        }
        let (duration, estimated) = (longest.queue, !longest.measured);
        let from = to.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        Some(Wait { kind: Bar::Queue, topic, messages, duration, estimated, from, to })
    }

    /// Which delivery `span` processed, for messages that were delivered more than once.
    pub(super) fn attempt(&self, span: &Span) -> Option<u32> {
        let key = std::ptr::from_ref(span);
        let hops = self.by_process.get(&key).filter(|hops| hops.len() == 1 && self.repeated.contains(&key))?;
        hops.first().map(|hop| hop.attempt)
    }
}

impl Wait<'_> {
    /// What it is called in the picture.
    pub(in crate::verify) fn label(&self) -> String {
        let what = if self.kind == Bar::Retry { "retry of" } else { "in queue" };
        match self.messages {
            1 => format!("{what} {}", self.topic),
            many => format!("{what} {} ×{many}", self.topic),
        }
    }
}
