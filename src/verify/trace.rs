//! Spans put together by trace.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::hop::{self, Hop};
use super::id::{SpanId, SpanRef, TraceId};
use super::resolve::Resolver;
use super::span::Span;

/// The spans of one trace, by start time. Never empty.
#[derive(Clone, Debug)]
pub struct Trace {
    id: TraceId,
    spans: Vec<Span>,
    by_id: HashMap<SpanId, usize>,
}

/// Traces, by the start of their first span.
///
/// Collects from any iterator of spans. A span exported twice, equal in everything, is kept once:
/// exporters repeat what they could not confirm. Spans that share an id but differ are all kept,
/// for the check to report.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    traces: Vec<Trace>,
    by_id: HashMap<TraceId, usize>,
}

impl Trace {
    /// The trace's id.
    #[must_use]
    pub const fn id(&self) -> TraceId {
        self.id
    }

    /// The spans, by start time.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The span with this id; the earliest one if several share it.
    #[must_use]
    pub fn span(&self, id: SpanId) -> Option<&Span> {
        self.position(id).map(|position| &self.spans[position])
    }

    /// The spans without a parent: exactly one in a whole trace.
    pub fn roots(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(|span| span.parent.is_none())
    }

    /// The names of the services that took part, in order of appearance.
    #[must_use]
    pub fn services(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        self.spans.iter().map(|span| &*span.service).filter(|service| seen.insert(*service)).collect()
    }

    /// When the first span started, in nanoseconds since the Unix epoch; unknown (zero) times are
    /// left out.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.spans.iter().map(|span| span.start).filter(|time| *time > 0).min().unwrap_or(0)
    }

    /// When the last span ended, or started if none ended later.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.spans.iter().map(|span| span.start.max(span.end)).max().unwrap_or(0)
    }

    /// From the first start to the last end.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.end().saturating_sub(self.start()))
    }

    /// Every way a message took through a queue into a process span of this trace, as far as this
    /// trace alone shows it.
    ///
    /// A message sent in another trace is only found by [`Traces::hops`].
    #[must_use]
    pub fn hops(&self) -> Vec<Hop<'_>> {
        hop::into(self, &Resolver::new([self]))
    }

    pub(super) fn position(&self, id: SpanId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    fn new(id: TraceId, mut spans: Vec<Span>) -> Self {
        // Of spans that start together the longer one is the likelier parent.
        spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end), span.span_id));
        spans.dedup();
        let mut by_id = HashMap::with_capacity(spans.len());
        for (position, span) in spans.iter().enumerate() {
            by_id.entry(span.span_id).or_insert(position);
        }
        Self { id, spans, by_id }
    }
}

impl Traces {
    /// The traces, by the start of their first span.
    pub fn iter(&self) -> std::slice::Iter<'_, Trace> {
        self.traces.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.traces.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// The trace with this id.
    #[must_use]
    pub fn get(&self, id: TraceId) -> Option<&Trace> {
        self.by_id.get(&id).map(|position| &self.traces[*position])
    }

    /// The span named by a link, or by a trace's own parent reference.
    #[must_use]
    pub fn span(&self, reference: SpanRef) -> Option<&Span> {
        self.get(reference.trace_id)?.span(reference.span_id)
    }

    /// Every way a message took through a queue, across all the traces.
    #[must_use]
    pub fn hops(&self) -> Vec<Hop<'_>> {
        let resolver = Resolver::new(self);
        self.iter().flat_map(|trace| hop::into(trace, &resolver)).collect()
    }
}

impl FromIterator<Span> for Traces {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        let mut groups: HashMap<TraceId, Vec<Span>> = HashMap::new();
        for span in spans {
            groups.entry(span.trace_id).or_default().push(span);
        }
        let mut traces: Vec<Trace> = groups.into_iter().map(|(id, spans)| Trace::new(id, spans)).collect();
        traces.sort_by_key(|trace| (trace.start(), trace.id));
        let by_id = traces.iter().enumerate().map(|(position, trace)| (trace.id, position)).collect();
        Self { traces, by_id }
    }
}

impl<'a> IntoIterator for &'a Traces {
    type Item = &'a Trace;
    type IntoIter = std::slice::Iter<'a, Trace>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
