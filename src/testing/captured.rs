//! One captured trace: what it holds, and how an assertion that fails shows it.

use std::fmt;
use std::sync::Arc;

use crate::delivery::Settlement;
use crate::span::SETTLEMENT;
use crate::verify::{Hop, Link, Operation, Report, Span, SpanRef, Trace, Traces, Waterfall, check};

/// Of the other traces of a capture that are broken, so many are shown beside the one an assertion is about.
const MOST_OTHERS: usize = 2;

/// A trace that was captured, to be asserted on. Every assertion returns it, so that they form a sentence:
///
/// ```no_run
/// # let capture = traced_broker::testing::Capture::new();
/// capture
///     .trace("POST /orders")
///     .assert_whole()
///     .hops(["orders", "shipments"])
///     .attempts("orders", 2)
///     .dead_lettered("shipments.dead");
/// ```
///
/// One that fails panics with what was expected, what was found, the waterfall of the trace, and every break that
/// [`check`](crate::verify::check()) finds in it by name. Where another trace of the capture is broken, it is shown as well: a trace
/// that broke in two begins anew elsewhere.
#[derive(Clone)]
#[must_use = "a trace asserts nothing by itself"]
pub struct CapturedTrace {
    traces: Arc<Traces>,
    pub(super) report: Arc<Report>,
    /// Which of the traces it is.
    position: usize,
}

impl CapturedTrace {
    /// Each of the traces.
    pub(super) fn all(traces: Traces) -> impl Iterator<Item = Self> {
        let report = Arc::new(check(&traces));
        let traces = Arc::new(traces);
        (0..traces.len()).map(move |position| {
            let (traces, report) = (Arc::clone(&traces), Arc::clone(&report));
            Self { traces, report, position }
        })
    }

    /// The trace, for questions that no assertion here asks.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.traces.iter().as_slice()[self.position]
    }

    /// The picture of the trace, with what is wrong with it.
    #[must_use]
    pub fn waterfall(&self) -> String {
        self.picture(self.trace())
    }

    /// Whether its first span, or another that has no parent, has that name.
    pub(super) fn begins_with(&self, name: &str) -> bool {
        self.trace().spans()[0].name == name || self.trace().roots().any(|root| root.name == name)
    }

    pub(super) fn name(&self) -> String {
        format!("the trace `{}`", self.trace().spans()[0].name)
    }

    /// The deliveries that were processed in this trace, wherever they were sent.
    pub(super) fn deliveries(&self) -> Vec<Hop<'_>> {
        let mut hops = self.traces.hops();
        hops.retain(|hop| hop.process.trace_id == self.trace().id());
        hops
    }

    pub(super) fn processing(&self, topic: &str) -> impl Iterator<Item = &Span> {
        self.trace().spans().iter().filter(move |span| span.is_processing() && span.destination() == topic)
    }

    /// The sends of this trace that copied what was given up: within its process span, linked to its creation context.
    pub(super) fn dead_letters(&self) -> impl Iterator<Item = &Span> {
        let rejected = |span: &Span| {
            span.is_processing() && span.attributes.text(SETTLEMENT) == Some(Settlement::Rejected.as_str())
        };
        self.trace().spans().iter().filter(move |span| {
            let parent = span.parent_reference().and_then(|parent| self.traces.span(parent));
            let created = |link: &Link| self.traces.span(link.target).is_some_and(Span::is_producing);
            span.role() == Some(Operation::Send) && parent.is_some_and(rejected) && span.links.iter().any(created)
        })
    }

    pub(super) fn links_out(&self) -> impl Iterator<Item = SpanRef> {
        self.trace().spans().iter().flat_map(|span| &span.links).map(|link| link.target)
    }

    pub(super) fn others(&self) -> impl Iterator<Item = Self> {
        let others = (0..self.traces.len()).filter(|position| *position != self.position);
        others.map(|position| Self { position, ..self.clone() })
    }

    fn picture(&self, trace: &Trace) -> String {
        Waterfall::new(trace).within(&self.traces).report(&self.report).to_string()
    }

    #[track_caller]
    pub(super) fn fail(&self, message: &str) -> ! {
        let broken = self.others().filter(|other| !self.report.of(other.trace().id()).is_empty());
        let others: Vec<String> = broken
            .take(MOST_OTHERS)
            .map(|other| format!("\n\nbroken as well is {}:\n{}", other.name(), self.picture(other.trace())))
            .collect();
        panic!("{message}\n\n{}{}\n", self.waterfall(), others.concat());
    }
}

impl fmt::Debug for CapturedTrace {
    /// The picture, as people look at traces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.waterfall())
    }
}
