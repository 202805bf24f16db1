//! Spans grouped by trace.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::id::{SpanId, SpanRef, TraceId};
use super::span::Span;

/// The spans of one trace, by start time. Never empty.
///
/// ```
/// use traced_broker::verify::{Span, SpanId, TraceId, Traces};
///
/// let mut root = Span::new(TraceId::new(1), SpanId::new(1), "POST /orders");
/// (root.service, root.start, root.end) = ("api".into(), 1_000, 9_000);
/// let mut child = Span::new(TraceId::new(1), SpanId::new(2), "send orders");
/// (child.service, child.start, child.end) = ("api".into(), 2_000, 3_000);
/// child.parent = Some(root.span_id);
///
/// let traces = Traces::from_iter([child, root]);
/// let trace = traces.get(TraceId::new(1)).unwrap();
/// assert_eq!(trace.spans()[0].name, "POST /orders"); // by start time
/// assert_eq!((trace.roots().count(), trace.services()), (1, vec!["api"]));
/// assert_eq!(trace.duration().as_nanos(), 8_000);
/// assert!(trace.span(SpanId::new(3)).is_none());
/// ```
#[derive(Clone, Debug)]
pub struct Trace {
    id: TraceId,
    spans: Vec<Span>,
    by_id: HashMap<SpanId, usize>,
}

/// Traces, by the start of their first span.
///
/// Collected from any iterator of spans. Identical copies of a span are kept once, because
/// exporters repeat unconfirmed exports. Spans that share an id but differ are all kept, for the
/// check to report.
///
/// ```
/// use traced_broker::verify::{Span, SpanId, TraceId, Traces};
///
/// let span = Span::new(TraceId::new(1), SpanId::new(1), "POST /orders");
/// let other = Span::new(TraceId::new(2), SpanId::new(1), "GET /orders");
/// let traces = Traces::from_iter([span.clone(), other, span.clone()]);
/// assert_eq!(traces.len(), 2);
/// assert_eq!(traces.get(TraceId::new(1)).unwrap().spans(), [span]);
/// assert!(traces.get(TraceId::new(3)).is_none());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Traces {
    traces: Vec<Trace>,
    by_id: HashMap<TraceId, usize>,
}

impl Trace {
    /// Returns the trace's id.
    #[must_use]
    pub const fn id(&self) -> TraceId {
        self.id
    }

    /// Returns the spans, by start time.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Returns the span with this id; the earliest one if several share it.
    #[must_use]
    pub fn span(&self, id: SpanId) -> Option<&Span> {
        self.position(id).map(|position| &self.spans[position])
    }

    /// Iterates over the spans without a parent: exactly one in a whole trace.
    pub fn roots(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(|span| span.parent.is_none())
    }

    /// Returns the names of the services that took part, in order of appearance.
    #[must_use]
    pub fn services(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        self.spans.iter().map(|span| &*span.service).filter(|service| seen.insert(*service)).collect()
    }

    /// Returns the start of the first span, in nanoseconds since the Unix epoch; unknown (zero)
    /// times are left out.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.spans.iter().map(|span| span.start).filter(|time| *time > 0).min().unwrap_or(0)
    }

    /// Returns the end of the last span, or its start if no span ended later.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.spans.iter().map(|span| span.start.max(span.end)).max().unwrap_or(0)
    }

    /// Returns the time from the first start to the last end.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.end().saturating_sub(self.start()))
    }

    pub(super) fn position(&self, id: SpanId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    fn new(id: TraceId, mut spans: Vec<Span>) -> Self {
        // Of spans that start at the same time, the longer one is more likely the parent.
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
    /// Iterates over the traces, by the start of their first span.
    pub fn iter(&self) -> std::slice::Iter<'_, Trace> {
        self.traces.iter()
    }

    /// Returns the number of traces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.traces.len()
    }

    /// Returns `true` if there are no traces.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// Returns the trace with this id.
    #[must_use]
    pub fn get(&self, id: TraceId) -> Option<&Trace> {
        self.by_id.get(&id).map(|position| &self.traces[*position])
    }

    /// Returns the span that a link or a parent reference names.
    ///
    /// ```
    /// use traced_broker::verify::{Span, SpanId, SpanRef, TraceId, Traces};
    ///
    /// let traces = Traces::from_iter([Span::new(TraceId::new(1), SpanId::new(1), "send orders")]);
    /// let target = SpanRef { trace_id: TraceId::new(1), span_id: SpanId::new(1) };
    /// assert_eq!(traces.span(target).unwrap().name, "send orders");
    /// let missing = SpanRef { span_id: SpanId::new(2), ..target };
    /// assert!(traces.span(missing).is_none());
    /// ```
    #[must_use]
    pub fn span(&self, reference: SpanRef) -> Option<&Span> {
        self.get(reference.trace_id)?.span(reference.span_id)
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
