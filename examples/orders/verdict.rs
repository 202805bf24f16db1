//! Whether every trace is whole and every order accounted for.

use std::collections::BTreeSet;

use traced_broker::verify::{self, Finding, FindingKind, Kind, Report, TraceId, Traces};

use crate::books::Books;
use crate::{chain, reconciliation};

/// What the exported spans and the books say together.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// What is wrong, one sentence each.
    pub(crate) problems: Vec<String>,
    /// Traces that were checked, those included of which nothing was exported.
    pub(crate) traces: usize,
    pub(crate) broken: BTreeSet<TraceId>,
    /// Orders that nobody knows the end of.
    pub(crate) unaccounted: usize,
    pub(crate) report: Report,
}

impl Verdict {
    /// Judges by nothing but the exported spans and the books.
    pub(crate) fn reach(books: &Books, traces: &Traces) -> Self {
        let report = verify::check(traces);
        let mut verdict =
            Self { problems: Vec::new(), traces: report.traces(), broken: BTreeSet::new(), unaccounted: 0, report };
        verdict.general_rules(books, traces);
        verdict.every_order(books, traces);
        verdict.the_job(books, traces);
        verdict.every_account(books);
        verdict
    }

    /// Whether the program may say that all is well.
    pub(crate) fn holds(&self) -> bool {
        self.problems.is_empty()
    }

    /// What holds for any trace of any system.
    fn general_rules(&mut self, books: &Books, traces: &Traces) {
        for finding in self.report.findings().iter().filter(|finding| !begins_at_a_caller(finding, traces, books)) {
            self.broken.insert(finding.trace);
            self.problems.push(finding.to_string());
        }
    }

    /// What holds for the trace of an order, from the request to the last service.
    fn every_order(&mut self, books: &Books, traces: &Traces) {
        for (order, account) in books.accepted().filter(|(_, account)| account.sampled) {
            let id = account.trace_id;
            let called = books.callers.contains(&id);
            let faults = match traces.get(id) {
                Some(trace) => chain::check(trace, account, called),
                None => {
                    self.traces += 1;
                    vec!["no span of it was exported".to_owned()]
                }
            };
            for fault in faults {
                self.broken.insert(id);
                self.problems.push(format!("order {order}, trace {id}: {fault}"));
            }
        }
    }

    /// The job runs in a trace of its own, and links what enqueued it, unless that was a request its caller did not
    /// want traced.
    fn the_job(&mut self, books: &Books, traces: &Traces) {
        let mut roots = traces.iter().flat_map(|trace| trace.roots());
        let job = roots.find(|root| root.name == reconciliation::JOB_SPAN && root.kind == Kind::Internal);
        let problem = match job {
            None if books.accepted().next().is_none() => return,
            None => "has no root span: it did not run, or was not exported",
            Some(job) if job.links.is_empty() && books.callers.is_empty() => "is not linked to what enqueued it",
            Some(_) => return,
        };
        self.broken.extend(job.map(|job| job.trace_id));
        self.problems.push(format!("{} {problem}", reconciliation::JOB));
    }

    /// What holds without any trace.
    fn every_account(&mut self, books: &Books) {
        let open = books.unaccounted();
        let failed = books.tally.failed;
        self.unaccounted = open.len() + failed;
        self.problems.extend(open);
        if failed > 0 {
            self.problems.push(format!("{failed} orders were posted and neither accepted nor refused"));
        }
    }
}

/// A caller's own span is in the caller's backend, not in our file: the API's span that continues it is no broken
/// trace.
fn begins_at_a_caller(finding: &Finding, traces: &Traces, books: &Books) -> bool {
    let span = || traces.get(finding.trace).and_then(|trace| trace.span(finding.span));
    finding.kind == FindingKind::MissingParent
        && books.callers.contains(&finding.trace)
        && span().is_some_and(|span| span.kind == Kind::Server)
}
