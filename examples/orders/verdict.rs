//! The proof: every trace is whole and every order accounted for.

use std::collections::BTreeSet;

use traced_broker::verify::{self, Finding, FindingKind, Kind, Span, SpanId, Trace, TraceId, TraceReport, Traces};

use crate::ledger::{Account, Books};
use crate::reconciliation::JOB;

/// The result of checking the exported spans against the books.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// One sentence for each problem; empty if all is well.
    pub(crate) problems: Vec<String>,
    /// The number of traces, including those without any exported span.
    pub(crate) traces: usize,
    pub(crate) broken: BTreeSet<TraceId>,
    /// The number of orders whose end is not known.
    pub(crate) unaccounted: usize,
    pub(crate) report: TraceReport,
}

impl Verdict {
    /// Judges by the exported spans and the books only.
    pub(crate) fn reach(books: &Books, traces: &Traces) -> Self {
        let report = verify::check(traces);
        let mut verdict = Self {
            problems: Vec::new(),
            traces: report.traces(),
            broken: BTreeSet::new(),
            unaccounted: books.unaccounted().len() + books.failed,
            report: report.clone(),
        };
        for finding in report.findings().iter().filter(|finding| !begins_at_a_caller(finding, traces, books)) {
            verdict.broken(finding.trace, finding.to_string());
        }
        for (order, account) in books.accounts.iter().filter(|(_, account)| account.accepted) {
            verdict.check_order(order, account, books, traces);
        }
        if books.count(|account| account.accepted) > 0 {
            verdict.check_job(books, traces);
        }
        verdict.problems.extend(books.unaccounted());
        if books.failed > 0 {
            verdict.problems.push(format!("{} orders were posted and neither accepted nor refused", books.failed));
        }
        verdict
    }

    fn broken(&mut self, trace: TraceId, problem: String) {
        self.broken.insert(trace);
        self.problems.push(problem);
    }

    fn check_order(&mut self, order: &str, account: &Account, books: &Books, traces: &Traces) {
        // Orders that were not sampled have no spans.
        let Some(request) = account.request else { return };
        let id = request.trace_id;
        let faults = match traces.get(id) {
            Some(trace) => faults(trace, request.span_id, account, books.callers.contains(&id)),
            None => {
                self.traces += 1;
                vec!["no span was exported".to_owned()]
            }
        };
        for fault in faults {
            self.broken(id, format!("order {order}, trace {id}: {fault}"));
        }
    }

    /// The job has its own trace, linked to the request that enqueued it. Only a request that its
    /// caller did not sample leaves the job without a link.
    fn check_job(&mut self, books: &Books, traces: &Traces) {
        let name = format!("job {JOB}");
        let mut roots = traces.iter().flat_map(|trace| trace.roots());
        match roots.find(|root| root.name == name && root.kind == Kind::Internal) {
            None => self.problems.push(format!("{JOB} has no root span: it did not run, or was not exported")),
            Some(job) if job.links.is_empty() && books.callers.is_empty() => {
                self.broken(job.trace_id, format!("{JOB} is not linked to the span that enqueued it"));
            }
            Some(_) => {}
        }
    }
}

/// Returns the faults in the trace of an accepted order.
///
/// [`verify::check`] has the rules for any trace; these are the ones of this system:
///
/// ```text
/// POST /orders                 the root, unless a client sent its context
/// └ send orders
///   ├ process orders             once for each attempt
///   └ process orders
///     └ send notifications
///       └ process notifications
/// ```
fn faults(trace: &Trace, request: SpanId, account: &Account, called: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut require = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    let is_request = |span: &Span| span.name == "POST /orders" && span.kind == Kind::Server;
    let root = trace.span(request).filter(|span| is_request(span) && (called || span.parent.is_none()));
    require(root.is_some(), "no span `POST /orders` of its request at the root".to_owned());

    let is_send = |span: &Span| span.name == "send orders" && span.parent == Some(request);
    let sends = trace.spans().iter().filter(|span| is_send(span)).count();
    require(sends == 1, format!("{sends} spans `send orders` inside `POST /orders`, not 1"));

    let hops = trace.hops();
    // Identified by the name of the span, because some brokers have native names for destinations.
    let orders = hops.iter().filter(|hop| hop.process.name == "process orders" && hop.creation.is_some_and(is_send));
    let attempts: Vec<SpanId> = orders.map(|hop| hop.process.span_id).collect();
    let (seen, made) = (attempts.len(), account.attempts.max(1) as usize);
    require(seen >= made, format!("{made} attempts, but {seen} spans `process orders` that continue `send orders`"));

    for (happened, topic) in [(account.fulfilled, "notifications"), (account.dead_lettered, "orders.dead")] {
        let (send, process) = (format!("send {topic}"), format!("process {topic}"));
        let from_attempt = |span: &Span| span.parent.is_some_and(|parent| attempts.contains(&parent));
        let is_send = |span: &Span| span.name == send && from_attempt(span);
        let found = hops.iter().any(|hop| hop.process.name == process && hop.send.is_some_and(is_send));
        require(found || !happened, format!("no `{process}` that continues a `{send}` inside `process orders`"));
    }
    faults
}

/// Returns `true` if only the span of the client is missing, which is in the client's backend.
fn begins_at_a_caller(finding: &Finding, traces: &Traces, books: &Books) -> bool {
    let span = traces.get(finding.trace).and_then(|trace| trace.span(finding.span));
    finding.kind == FindingKind::MissingParent
        && books.callers.contains(&finding.trace)
        && span.is_some_and(|span| span.kind == Kind::Server)
}
