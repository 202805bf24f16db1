//! A captured trace: its contents, and its display in failed assertions.

use crate::names::attribute;
use std::fmt;
use std::sync::Arc;

use crate::broker::Settlement;
use crate::verify::{Link, Operation, QueueHop, Span, SpanRef, Trace, TraceReport, Traces, Waterfall, check};

/// Maximum number of other broken traces that are shown beside the trace of a failed assertion.
const MOST_OTHERS: usize = 2;

/// A captured trace, with assertions on it. Every assertion returns the trace, so calls can be
/// chained:
///
/// ```
/// use traced_broker::testing::TestBed;
/// use traced_broker::{Message, TracedBroker};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let bed = TestBed::new().without_reader("orders");
/// let api = bed.broker("api");
/// let order = async { api.publish("orders", Message::new("one pair of shoes")).await };
/// bed.in_root_span("api", "POST /orders", order).await.unwrap();
/// bed.settled().await.unwrap();
///
/// let trace = bed.trace("POST /orders");
/// trace.assert_whole().spans(["POST /orders", "send orders"]).services(["api"]);
///
/// // The message was not processed.
/// let failed = std::panic::catch_unwind(|| {
///     trace.hops(["orders"]);
/// });
/// assert!(failed.is_err());
/// # }
/// ```
///
/// A failed assertion panics with the expected and the actual result, the waterfall of the trace,
/// and all findings of [`check`](crate::verify::check()) in it. If another trace of the capture is
/// broken, it is shown as well: the rest of a broken trace begins a new one.
#[derive(Clone)]
#[must_use = "a trace asserts nothing by itself"]
pub struct CapturedTrace {
    traces: Arc<Traces>,
    pub(super) report: Arc<TraceReport>,
    /// The index of the trace in `traces`.
    position: usize,
}

impl CapturedTrace {
    /// Returns every one of the traces.
    pub(super) fn all(traces: Traces) -> impl Iterator<Item = Self> {
        let report = Arc::new(check(&traces));
        let traces = Arc::new(traces);
        (0..traces.len()).map(move |position| {
            let (traces, report) = (Arc::clone(&traces), Arc::clone(&report));
            Self { traces, report, position }
        })
    }

    /// Returns the trace, for questions that no assertion here covers.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.traces.iter().as_slice()[self.position]
    }

    /// Returns `true` if the trace has no finding.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.report.of(self.trace().id()).is_empty()
    }

    /// Draws the trace, with its findings.
    #[must_use]
    pub fn waterfall(&self) -> String {
        self.picture(self.trace())
    }

    /// Returns `true` if its first span, or another span without a parent, has this name.
    pub(super) fn begins_with(&self, name: &str) -> bool {
        self.trace().spans()[0].name == name || self.trace().roots().any(|root| root.name == name)
    }

    pub(super) fn name(&self) -> String {
        format!("the trace `{}`", self.trace().spans()[0].name)
    }

    /// Returns the deliveries that were processed in this trace, wherever they were sent.
    pub(super) fn deliveries(&self) -> Vec<QueueHop<'_>> {
        let mut hops = self.traces.hops();
        hops.retain(|hop| hop.process.trace_id == self.trace().id());
        hops
    }

    pub(super) fn processing(&self, topic: &str) -> impl Iterator<Item = &Span> {
        self.trace().spans().iter().filter(move |span| span.is_processing() && span.destination() == topic)
    }

    /// Iterates over the sends of this trace that copied a rejected message: within its process
    /// span, linked to its creation context.
    pub(super) fn dead_letters(&self) -> impl Iterator<Item = &Span> {
        let rejected = |span: &Span| {
            span.is_processing() && span.attributes.text(attribute::SETTLEMENT) == Some(Settlement::Rejected.as_str())
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
            .map(|other| format!("\n\n{} is also broken:\n{}", other.name(), self.picture(other.trace())))
            .collect();
        panic!("{message}\n\n{}{}\n", self.waterfall(), others.concat());
    }
}

impl fmt::Debug for CapturedTrace {
    /// Writes the waterfall.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.waterfall())
    }
}
