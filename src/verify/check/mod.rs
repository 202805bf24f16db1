//! Is every trace whole, and if not, where did it break?

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

/// Checks every trace on its own and in what it links to.
///
/// A link may lead into any of `traces`, so hand over all that were exported together. What is
/// looked for is listed at [`FindingKind`]; a span whose work failed is not a finding, as errors do
/// not break traces.
#[must_use]
pub fn check(traces: &Traces) -> Report {
    let resolver = Resolver::new(traces);
    let mut report = Report::default();
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

/// What a check found. A trace is whole when nothing was found in it, else broken.
#[derive(Clone, Debug, Default)]
pub struct Report {
    traces: usize,
    findings: Vec<Finding>,
    /// Where each broken trace's findings lie in the list, which holds them together.
    broken: HashMap<TraceId, std::ops::Range<usize>>,
    latencies: Latencies,
}

impl Report {
    /// Whether there was at least one trace and all are whole: having seen nothing proves nothing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.traces > 0 && self.findings.is_empty()
    }

    /// How many traces were checked.
    #[must_use]
    pub const fn traces(&self) -> usize {
        self.traces
    }

    /// How many of them are whole.
    #[must_use]
    pub fn whole(&self) -> usize {
        self.traces - self.broken.len()
    }

    /// How many of them are broken.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.broken.len()
    }

    /// Everything found: in the order of the traces, and within a trace of its spans.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What was found in one trace; empty when it is whole, or was not checked.
    #[must_use]
    pub fn of(&self, trace: TraceId) -> &[Finding] {
        self.broken.get(&trace).map_or(&[], |range| &self.findings[range.clone()])
    }

    /// How long messages waited in queues before their first delivery, in all the traces.
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

/// One line with the numbers, then one for each finding.
impl fmt::Display for Report {
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
