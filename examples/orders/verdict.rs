//! Whether every trace is whole and every order accounted for.

use std::collections::BTreeSet;

use traced_broker::verify::{self, Finding, FindingKind, Kind, Report, Traces};

use crate::books::Books;
use crate::chain;

/// What the exported spans and the books say together.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// What is wrong, one sentence each.
    pub(crate) problems: Vec<String>,
    /// Traces that were checked, those included of which nothing was exported.
    pub(crate) traces: usize,
    pub(crate) broken: usize,
    pub(crate) unaccounted: usize,
    pub(crate) report: Report,
}

impl Verdict {
    /// Judges by nothing but the exported spans and the books.
    pub(crate) fn reach(books: &Books, traces: &Traces) -> Self {
        let report = verify::check(traces);
        let mut broken = BTreeSet::new();
        let mut problems = Vec::new();
        for finding in report.findings().iter().filter(|finding| !begins_at_a_caller(finding, traces, books)) {
            broken.insert(finding.trace);
            problems.push(finding.to_string());
        }
        let mut missing = 0;
        for (order, account) in books.accepted().filter(|(_, account)| account.sampled) {
            let id = account.trace_id;
            let called = books.callers.contains(&account.trace_id);
            let trace = traces.get(id);
            missing += usize::from(trace.is_none());
            let faults = trace.map_or_else(
                || vec!["no span of it was exported".to_owned()],
                |trace| chain::check(trace, account, called),
            );
            if !faults.is_empty() {
                broken.insert(id);
            }
            problems.extend(faults.into_iter().map(|fault| format!("order {order}, trace {id}: {fault}")));
        }
        let unaccounted = books.unaccounted();
        let (traces, broken) = (report.traces() + missing, broken.len());
        let verdict = Self { problems, traces, broken, unaccounted: unaccounted.len() + books.tally.failed, report };
        verdict.with(unaccounted)
    }

    /// Whether the program may say that all is well.
    pub(crate) fn holds(&self) -> bool {
        self.problems.is_empty() && self.broken == 0 && self.unaccounted == 0
    }

    fn with(mut self, more: Vec<String>) -> Self {
        self.problems.extend(more);
        self
    }
}

/// A caller's own span is in the caller's backend, not in our file: the API's span that continues it is no broken trace.
fn begins_at_a_caller(finding: &Finding, traces: &Traces, books: &Books) -> bool {
    let span = || traces.get(finding.trace).and_then(|trace| trace.span(finding.span));
    finding.kind == FindingKind::MissingParent
        && books.callers.contains(&finding.trace)
        && span().is_some_and(|span| span.kind == Kind::Server)
}
