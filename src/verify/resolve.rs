//! Resolution of references to spans, within and across traces.

use std::collections::{HashMap, HashSet};

use super::id::{SpanRef, TraceId};
use super::messaging::{Operation, reaches};
use super::span::Span;
use super::trace::Trace;

/// An index of spans by the references to them.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    traces: HashMap<TraceId, &'a Trace>,
    /// Send spans by the creation contexts they link to: batches, forwarded and dead-lettered
    /// messages.
    senders: HashMap<SpanRef, Vec<&'a Span>>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(traces: impl IntoIterator<Item = &'a Trace>) -> Self {
        let traces: HashMap<_, _> = traces.into_iter().map(|trace| (trace.id(), trace)).collect();
        let mut senders: HashMap<SpanRef, Vec<&Span>> = HashMap::new();
        for span in traces.values().flat_map(|trace| trace.spans()) {
            if span.role() == Some(Operation::Send) {
                for link in &span.links {
                    senders.entry(link.target).or_default().push(span);
                }
            }
        }
        Self { traces, senders }
    }

    pub(super) fn span(&self, reference: SpanRef) -> Option<&'a Span> {
        self.traces.get(&reference.trace_id)?.span(reference.span_id)
    }

    pub(super) fn parent(&self, span: &Span) -> Option<&'a Span> {
        self.span(span.parent_reference()?)
    }

    /// Returns the spans whose context the processed messages carried: linked spans first, then the
    /// parent.
    pub(super) fn creations(&self, process: &Span) -> Vec<&'a Span> {
        let mut seen = HashSet::new();
        let references = process.links.iter().map(|link| link.target).chain(process.parent_reference());
        references
            .filter(|reference| seen.insert(*reference))
            .filter_map(|reference| self.span(reference))
            .filter(|span| span.is_producing())
            .collect()
    }

    /// Returns the span that put the message where `process` read it.
    ///
    /// This is usually the creation span itself. A message that already had its context when it was
    /// sent (in a batch, forwarded, dead-lettered, put back for a retry) was sent by a later span
    /// that links to the creation span. Of the later spans that lead to the same topic, the last
    /// one before processing began is returned, so the queue time is that of this leg alone.
    pub(super) fn sender(&self, creation: &'a Span, process: &Span) -> &'a Span {
        let legs = self.senders.get(&creation.reference()).map_or(&[][..], Vec::as_slice);
        let legs = || legs.iter().copied().filter(|send| reaches(send.destination(), process.destination()));
        let last_before = legs().filter(|send| send.start <= process.start).max_by_key(|send| send.start);
        // A create span does not reach the broker itself, so its send counts even if the clocks put
        // it too late.
        let only_after = || legs().min_by_key(|send| send.start).filter(|_| creation.role() == Some(Operation::Create));
        last_before.or_else(only_after).unwrap_or(creation)
    }
}
