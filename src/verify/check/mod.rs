//! Checks whether traces are whole, and finds where they broke.

mod finding;
mod messaging;
mod shape;

use std::collections::HashMap;
use std::fmt;

pub use self::finding::{Finding, FindingKind};
use super::hop;
use super::id::TraceId;
use super::latency::{HumanDuration, Latencies};
use super::resolve::Resolver;
use super::trace::{Trace, Traces};

/// Checks every trace by itself and across its links.
///
/// A link may lead into any of `traces`, so pass all that were exported together. [`FindingKind`]
/// lists the rules. A span whose work failed is not a finding, because errors do not break traces.
///
/// ```
/// use traced_broker::verify::{FindingKind, Kind, Span, SpanId, TraceId, Traces, check};
///
/// let mut root = Span::new(TraceId::new(1), SpanId::new(1), "POST /orders");
/// (root.kind, root.start, root.end) = (Kind::Server, 1_000, 9_000);
/// let mut child = Span::new(TraceId::new(1), SpanId::new(2), "send orders");
/// (child.kind, child.start, child.end) = (Kind::Producer, 2_000, 3_000);
/// child.parent = Some(root.span_id);
/// assert!(check(&Traces::from_iter([root, child.clone()])).is_whole());
///
/// // The root was not exported.
/// let report = check(&Traces::from_iter([child]));
/// assert_eq!(report.findings()[0].kind, FindingKind::MissingParent);
/// ```
#[must_use]
pub fn check(traces: &Traces) -> TraceReport {
    let resolver = Resolver::new(traces);
    let mut report = TraceReport::default();
    let mut queued = Vec::new();
    for trace in traces {
        let hops = hop::into(trace, &resolver);
        let mut findings = Vec::new();
        shape::check(trace, &resolver, &mut findings);
        messaging::check(trace, &resolver, &hops, &mut findings);
        queued.extend(hops);
        report.add(trace, findings);
    }
    report.latencies = Latencies::of(&queued);
    report
}

/// The result of a check. A trace without findings is whole, any other is broken.
///
/// ```
/// use traced_broker::verify::{Kind, TraceReport, Span, SpanId, TraceId, Traces, check};
///
/// let mut send = Span::new(TraceId::new(1), SpanId::new(1), "send orders");
/// (send.kind, send.start, send.end) = (Kind::Producer, 1_000, 2_000);
/// let mut open = Span::new(TraceId::new(2), SpanId::new(2), "POST /orders");
/// open.start = 5_000; // never ended
///
/// let report = check(&Traces::from_iter([send, open]));
/// assert_eq!((report.traces(), report.whole(), report.broken()), (2, 1, 1));
/// assert!(report.of(TraceId::new(1)).is_empty());
/// assert_eq!(report.of(TraceId::new(2)).len(), 1);
/// assert!(report.to_string().starts_with("traces: 1 whole, 1 broken\ntrace 0000"));
///
/// assert!(!TraceReport::default().is_whole()); // no traces
/// ```
#[derive(Clone, Debug, Default)]
pub struct TraceReport {
    traces: usize,
    findings: Vec<Finding>,
    /// The range of each broken trace's findings in the list.
    broken: HashMap<TraceId, std::ops::Range<usize>>,
    latencies: Latencies,
}

impl TraceReport {
    /// Returns `true` if there was at least one trace and all are whole; `false` without any trace.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.traces > 0 && self.findings.is_empty()
    }

    /// Returns the number of traces checked.
    #[must_use]
    pub const fn traces(&self) -> usize {
        self.traces
    }

    /// Returns the number of whole traces.
    #[must_use]
    pub fn whole(&self) -> usize {
        self.traces - self.broken.len()
    }

    /// Returns the number of broken traces.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.broken.len()
    }

    /// Returns all findings, in the order of the traces, and within a trace in the order of its
    /// spans.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns the findings of one trace; empty if it is whole, or was not checked.
    #[must_use]
    pub fn of(&self, trace: TraceId) -> &[Finding] {
        self.broken.get(&trace).map_or(&[], |range| &self.findings[range.clone()])
    }

    /// Returns the times that messages waited in queues before their first delivery, in all the
    /// traces.
    #[must_use]
    pub const fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    fn add(&mut self, trace: &Trace, mut findings: Vec<Finding>) {
        self.traces += 1;
        if findings.is_empty() {
            return;
        }
        findings.sort_by_key(|finding| trace.position(finding.span));
        let start = self.findings.len();
        self.findings.append(&mut findings);
        self.broken.insert(trace.id(), start..self.findings.len());
    }
}

/// Writes one line with the totals, then one line for each finding.
impl fmt::Display for TraceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "traces: {} whole, {} broken", self.whole(), self.broken())?;
        if let (Some(half), Some(most)) = (self.latencies.quantile(0.5), self.latencies.quantile(0.99)) {
            let (half, most) = (HumanDuration(half), HumanDuration(most));
            write!(f, " · queued: {} · p50 {half} · p99 {most}", self.latencies.len())?;
        }
        for finding in &self.findings {
            write!(f, "\n{finding}")?;
        }
        Ok(())
    }
}
