//! The waits of messages.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::row::{Bar, BarKind, Wait};
use crate::verify::hop::{self, QueueHop};
use crate::verify::resolve::Resolver;
use crate::verify::span::Span;
use crate::verify::trace::Trace;

/// The hops into the spans of a trace.
#[derive(Debug)]
pub(super) struct Waits<'a> {
    by_process: HashMap<*const Span, Vec<QueueHop<'a>>>,
    repeated: HashSet<*const Span>,
}

impl<'a> Waits<'a> {
    pub(super) fn of(trace: &'a Trace, others: impl Iterator<Item = &'a Trace>) -> Self {
        let resolver = Resolver::new(std::iter::once(trace).chain(others));
        let hops = hop::into(trace, &resolver);
        let series = |hop: &QueueHop<'a>| (hop.creation.map(Span::reference), hop.topic(), hop.process.group());
        let retried: HashSet<_> = hops.iter().filter(|hop| hop.attempt > 1).map(series).collect();
        let (mut by_process, mut repeated) = (HashMap::<_, Vec<QueueHop<'_>>>::new(), HashSet::new());
        for hop in hops {
            let key = std::ptr::from_ref(hop.process);
            if retried.contains(&series(&hop)) {
                repeated.insert(key);
            }
            by_process.entry(key).or_default().push(hop);
        }
        Self { by_process, repeated }
    }

    /// Returns the wait that ended when `span` began.
    pub(super) fn before(&self, span: &Span) -> Option<Wait<'a>> {
        let hops = self.by_process.get(&std::ptr::from_ref(span)).filter(|_| span.start > 0)?;
        let longest = hops.iter().max_by_key(|hop| hop.queue)?;
        let (topic, messages, to) = (longest.topic(), hops.len(), span.start);
        if let (Some(previous), 1) = (longest.previous, messages) {
            let from = previous.end.min(to);
            let (duration, bar) = (Duration::from_nanos(to - from), Bar { kind: BarKind::Retry, from, to });
            return Some(Wait { topic, messages, duration, estimated: false, bar });
        }
        let (duration, estimated) = (longest.queue, !longest.measured);
        let from = to.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        Some(Wait { topic, messages, duration, estimated, bar: Bar { kind: BarKind::Queue, from, to } })
    }

    /// Returns the number of the delivery that `span` processed, for messages that were delivered
    /// more than once.
    pub(super) fn attempt(&self, span: &Span) -> Option<u32> {
        let key = std::ptr::from_ref(span);
        let hops = self.by_process.get(&key).filter(|hops| hops.len() == 1 && self.repeated.contains(&key))?;
        hops.first().map(|hop| hop.attempt)
    }
}
