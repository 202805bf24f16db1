//! The result of checking one trace.

use std::time::Duration;

use traced_broker::verify::{
    Finding, FindingKind, HumanDuration, QueueHop, Trace, TraceId, TraceReport, Traces, check,
};

use super::backend::Backend;
use super::broken::Break;
use super::diagnosis;
use super::expectation::{ExpectationResult, Requirements};
use super::request::RequestedTrace;
use super::stray;
use crate::error::CliError;

/// A checked trace, with all its defects.
#[derive(Debug)]
pub(super) struct Outcome {
    traces: Traces,
    requested: RequestedTrace,
    report: TraceReport,
    /// The findings of the report, without those that only a clock skew between services explains.
    findings: Vec<Finding>,
    expectations: Vec<ExpectationResult>,
    slow: Vec<Slow>,
    skews: Vec<Skew>,
    breaks: Vec<Break>,
}

/// A message that waited too long.
#[derive(Debug)]
pub(super) struct Slow {
    pub(super) topic: String,
    pub(super) process: String,
    pub(super) waited: Duration,
    pub(super) max: Duration,
}

/// A difference between the clocks of two services.
#[derive(Debug)]
struct Skew {
    sender: String,
    consumer: String,
    by: Duration,
}

impl Outcome {
    /// Checks the requested trace among `traces`; returns `None` if it is missing.
    pub(super) fn new(requested: RequestedTrace, traces: Traces, requirements: &Requirements) -> Option<Self> {
        let report = check(&traces);
        let trace = traces.get(requested.trace)?;
        let hops = hops(&traces, requested.trace);
        let skews: Vec<Skew> = hops.iter().filter_map(|hop| Skew::new(hop, requirements.max_clock_skew)).collect();
        let mut findings = report.of(requested.trace).to_vec();
        findings.retain(|finding| {
            let mut early = hops.iter().filter(|hop| hop.process.span_id == finding.span).filter_map(ahead);
            // A skew between services is reported separately, and only above the maximum.
            finding.kind != FindingKind::ProcessedBeforeSent || early.any(|(_, between_services)| !between_services)
        });
        let expectations: Vec<_> = requirements.expectations.iter().map(|expected| expected.check(trace)).collect();
        let slow = requirements.max_queue_latency.map(|max| slow(&hops, max)).unwrap_or_default();
        let breaks = diagnosis::breaks(trace, &hops, &findings, &expectations, requested.sampled);
        Some(Self { requested, report, findings, expectations, slow, skews, breaks, traces })
    }

    /// Searches the backend for messages that were processed in another trace, if that decides
    /// between causes.
    pub(super) async fn find_strays(&mut self, backend: &Backend) {
        let Some(trace) = self.traces.get(self.requested.trace) else { return };
        for at in self.breaks.iter_mut().filter(|at| at.is_doubtful()) {
            let Some(send) = at.last_good.as_ref().and_then(|last| trace.span(last.span)) else { continue };
            if let Some(strays) = stray::find(backend, send).await {
                at.learn(strays);
            }
        }
    }

    /// Returns the checked trace, which is always present.
    pub(super) fn trace(&self) -> Option<&Trace> {
        self.traces.get(self.requested.trace)
    }

    pub(super) const fn traces(&self) -> &Traces {
        &self.traces
    }

    pub(super) const fn requested(&self) -> RequestedTrace {
        self.requested
    }

    /// Returns the report for the picture; `None` if its verdict would contradict the outcome.
    pub(super) fn report(&self) -> Option<&TraceReport> {
        let agrees = !self.findings.is_empty() || (self.is_whole() && self.report.of(self.requested.trace).is_empty());
        agrees.then_some(&self.report)
    }

    pub(super) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub(super) fn expectations(&self) -> &[ExpectationResult] {
        &self.expectations
    }

    pub(super) fn slow(&self) -> &[Slow] {
        &self.slow
    }

    pub(super) fn breaks(&self) -> &[Break] {
        &self.breaks
    }

    pub(super) fn hops(&self) -> Vec<QueueHop<'_>> {
        hops(&self.traces, self.requested.trace)
    }

    pub(super) fn is_broken(&self) -> bool {
        !self.findings.is_empty() || !self.slow.is_empty() || self.expectations.iter().any(|result| !result.is_met())
    }

    pub(super) fn is_whole(&self) -> bool {
        !self.is_broken() && self.skews.is_empty()
    }

    /// Returns the reason why an unbroken trace is not called whole.
    pub(super) fn error(&self) -> Option<CliError> {
        let worst = self.skews.iter().max_by_key(|skew| skew.by).filter(|_| !self.is_broken())?;
        let Skew { sender, consumer, by } = worst;
        let by = HumanDuration(*by);
        Some(CliError::new(format!(
            "the clocks of {sender} and {consumer} differ by {by} or more, so the order of the spans is unknown: \
             synchronize the clocks, or allow the difference with --max-clock-skew"
        )))
    }

    /// Returns `true` if further spans could resolve a defect.
    pub(super) fn may_improve(&self) -> bool {
        let absent = |finding: &Finding| matches!(finding.kind, FindingKind::MissingParent | FindingKind::MissingLink);
        self.findings.iter().any(absent) || self.expectations.iter().any(|result| !result.is_met())
    }
}

impl Skew {
    fn new(hop: &QueueHop<'_>, max: Duration) -> Option<Self> {
        let (by, _) = ahead(hop).filter(|(by, between_services)| *between_services && *by > max)?;
        let sender = hop.send?.service.to_string();
        Some(Self { sender, consumer: hop.process.service.to_string(), by })
    }
}

/// Returns the duration by which the processing seems to precede the send, and `true` if the two
/// spans are of different services.
fn ahead(hop: &QueueHop<'_>) -> Option<(Duration, bool)> {
    let send = hop.send?;
    let by = send.start.checked_sub(hop.process.start).filter(|by| *by > 0 && hop.process.start > 0)?;
    Some((Duration::from_nanos(by), send.service != hop.process.service))
}

fn hops(traces: &Traces, trace: TraceId) -> Vec<QueueHop<'_>> {
    traces.hops().into_iter().filter(|hop| hop.process.trace_id == trace).collect()
}

/// Returns the messages that waited longer than `max`, without redeliveries, which wait by design.
fn slow(hops: &[QueueHop<'_>], max: Duration) -> Vec<Slow> {
    let late = hops.iter().filter(|hop| !hop.is_redelivery() && hop.queue > max);
    late.map(|hop| Slow {
        topic: hop.topic().to_owned(),
        process: format!("`{}` of {}", hop.process.name, hop.process.service),
        waited: hop.queue,
        max,
    })
    .collect()
}
