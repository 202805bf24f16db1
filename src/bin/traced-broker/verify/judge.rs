//! The judgement of one trace.

use std::time::Duration;

use traced_broker::verify::{Finding, FindingKind, Hop, HumanDuration, Report, Trace, Traces, check};

use super::backend::Backend;
use super::diagnosis::{self, Break};
use super::expectation::{Demands, Expectation};
use super::request::Asked;
use super::stray;
use crate::trouble::Trouble;

/// A trace and everything that is held against it.
#[derive(Debug)]
pub(super) struct Case {
    traces: Traces,
    asked: Asked,
    report: Report,
    /// Those of the report that count.
    findings: Vec<Finding>,
    expectations: Vec<Met>,
    slow: Vec<Slow>,
    skews: Vec<Skew>,
    breaks: Vec<Break>,
}

/// An expectation, and how many spans there are for it.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) expectation: Expectation,
    pub(super) found: usize,
}

/// A message that waited too long.
#[derive(Debug)]
pub(super) struct Slow {
    pub(super) topic: String,
    pub(super) process: String,
    pub(super) waited: Duration,
    pub(super) most: Duration,
}

/// Two clocks that cannot both be right.
#[derive(Debug)]
struct Skew {
    sender: String,
    consumer: String,
    by: Duration,
}

impl Case {
    /// Judges the trace asked for among `traces`; `None` when it is not there.
    pub(super) fn of(asked: Asked, traces: Traces, demands: &Demands) -> Option<Self> {
        let report = check(&traces);
        let trace = traces.get(asked.trace)?;
        let hops: Vec<_> = traces.hops().into_iter().filter(|hop| hop.process.trace_id == asked.trace).collect();
        let skews: Vec<Skew> = hops.iter().filter_map(|hop| Skew::of(hop, demands.max_clock_skew)).collect();
        let mut findings = report.of(asked.trace).to_vec();
        findings.retain(|finding| {
            let mut early = hops.iter().filter(|hop| hop.process.span_id == finding.span).filter_map(ahead);
            // Clocks that differ between services are told of apart, and only when by more than they may.
            finding.kind != FindingKind::ProcessedBeforeSent || early.any(|(_, between_services)| !between_services)
        });
        let met = |expectation: &Expectation| Met { found: expectation.found(trace), expectation: expectation.clone() };
        let expectations: Vec<Met> = demands.expectations.iter().map(met).collect();
        let slow = demands.max_queue_latency.map(|most| slow(&hops, most)).unwrap_or_default();
        let breaks = diagnosis::breaks(trace, &hops, &findings, &expectations, asked.sampled);
        Some(Self { asked, report, findings, expectations, slow, skews, breaks, traces })
    }

    /// Looks in the backend for what became of messages whose processing is not in the trace, where that tells one cause from another.
    pub(super) async fn look_for_strays(&mut self, backend: &Backend) {
        let Some(trace) = self.traces.get(self.asked.trace) else { return };
        for at in self.breaks.iter_mut().filter(|at| at.is_doubtful()) {
            let Some(send) = at.last_good.as_ref().and_then(|place| trace.span(place.span)) else { continue };
            if let Some(strays) = stray::look(backend, send).await {
                at.learn(strays);
            }
        }
    }

    /// The trace that is judged. Always there: without it there is no case.
    pub(super) fn trace(&self) -> Option<&Trace> {
        self.traces.get(self.asked.trace)
    }

    pub(super) const fn traces(&self) -> &Traces {
        &self.traces
    }

    pub(super) const fn asked(&self) -> Asked {
        self.asked
    }

    /// What the check found, for the picture; `None` when the picture would say that all is well and it is not, or the
    /// other way round.
    pub(super) fn report(&self) -> Option<&Report> {
        let agrees = if self.findings.is_empty() {
            self.is_whole() && self.report.of(self.asked.trace).is_empty()
        } else {
            true
        };
        agrees.then_some(&self.report)
    }

    pub(super) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub(super) fn expectations(&self) -> &[Met] {
        &self.expectations
    }

    pub(super) fn slow(&self) -> &[Slow] {
        &self.slow
    }

    pub(super) fn breaks(&self) -> &[Break] {
        &self.breaks
    }

    pub(super) fn hops(&self) -> Vec<Hop<'_>> {
        self.traces.hops().into_iter().filter(|hop| hop.process.trace_id == self.asked.trace).collect()
    }

    pub(super) fn is_broken(&self) -> bool {
        !self.findings.is_empty() || !self.slow.is_empty() || self.expectations.iter().any(|met| !met.is_met())
    }

    pub(super) fn is_whole(&self) -> bool {
        !self.is_broken() && self.skews.is_empty()
    }

    /// Why an unbroken trace is not called whole either.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let worst = self.skews.iter().max_by_key(|skew| skew.by).filter(|_| !self.is_broken())?;
        let Skew { sender, consumer, by } = worst;
        let by = HumanDuration(*by);
        Some(Trouble::new(format!(
            "the clocks of {sender} and {consumer} differ by {by} or more, so that what came first cannot be told: set \
             the clocks, or allow for it with --max-clock-skew"
        )))
    }

    /// Whether more spans could change the judgement for the better.
    pub(super) fn may_heal(&self) -> bool {
        let absent = |finding: &Finding| matches!(finding.kind, FindingKind::MissingParent | FindingKind::MissingLink);
        self.findings.iter().any(absent) || self.expectations.iter().any(|met| !met.is_met())
    }
}

impl Met {
    pub(super) const fn is_met(&self) -> bool {
        self.found >= self.expectation.count
    }
}

impl Skew {
    fn of(hop: &Hop<'_>, most: Duration) -> Option<Self> {
        let (by, _) = ahead(hop).filter(|(by, between_services)| *between_services && *by > most)?;
        let sender = hop.send?.service.to_string();
        Some(Self { sender, consumer: hop.process.service.to_string(), by })
    }
}

/// By how much the processing seems to come before the sending, and whether two services tell the times.
fn ahead(hop: &Hop<'_>) -> Option<(Duration, bool)> {
    let send = hop.send?;
    let by = send.start.checked_sub(hop.process.start).filter(|by| *by > 0 && hop.process.start > 0)?;
    Some((Duration::from_nanos(by), send.service != hop.process.service))
}

/// Redeliveries are left out: they wait by design.
fn slow(hops: &[Hop<'_>], most: Duration) -> Vec<Slow> {
    let late = hops.iter().filter(|hop| !hop.is_redelivery() && hop.queue > most);
    late.map(|hop| Slow {
        topic: hop.topic().to_owned(),
        process: format!("`{}` of {}", hop.process.name, hop.process.service),
        waited: hop.queue,
        most,
    })
    .collect()
}
