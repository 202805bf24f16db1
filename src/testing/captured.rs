//! One captured trace, and what can be asserted of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::delivery::Settlement;
use crate::span::SETTLEMENT;
use crate::verify::{FindingKind, Hop, Operation, Report, Span, SpanRef, Trace, Traces, Waterfall, check};

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
    report: Arc<Report>,
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

    /// Every parent and every link leads to a captured span, every span has ended, every message carried the context of the span
    /// that sent it, and whatever else [`FindingKind`] lists is as it should be.
    #[track_caller]
    pub fn assert_whole(&self) -> &Self {
        let findings = self.report.of(self.trace().id());
        if !findings.is_empty() {
            let mut kinds: Vec<FindingKind> = findings.iter().map(|finding| finding.kind).collect();
            kinds.dedup();
            let kinds: Vec<&str> = kinds.into_iter().map(FindingKind::as_str).collect();
            self.fail(&format!("{} is broken: {}", self.name(), kinds.join(", ")));
        }
        self
    }

    /// Messages were processed from these topics, in this order of their first attempts; those of dead letters are among them.
    #[track_caller]
    pub fn hops<'t>(&self, topics: impl IntoIterator<Item = &'t str>) -> &Self {
        let repeated: Vec<SpanRef> =
            self.deliveries().iter().filter(|hop| hop.is_redelivery()).map(process_of).collect();
        let processing = self.trace().spans().iter().filter(|span| span.is_processing());
        let first = processing.filter(|span| !repeated.contains(&span.reference()));
        self.compare("the hops", topics.into_iter().collect(), first.map(Span::destination).collect());
        self
    }

    /// So many attempts were made at every message of `topic` that was processed in this trace.
    #[track_caller]
    pub fn attempts(&self, topic: &str, attempts: usize) -> &Self {
        type Message<'a> = (Option<SpanRef>, Option<SpanRef>, Option<&'a str>);
        let mut counts: HashMap<Message<'_>, usize> = HashMap::new();
        let deliveries = self.deliveries();
        for hop in deliveries.iter().filter(|hop| hop.topic() == topic) {
            let message = (hop.creation.map(Span::reference), hop.send.map(Span::reference), hop.process.group());
            *counts.entry(message).or_default() += 1;
        }
        let mut found: Vec<usize> = counts.into_values().collect();
        found.sort_unstable();
        if found.is_empty() || found.iter().any(|count| *count != attempts) {
            let found = if found.is_empty() { "none".to_owned() } else { list(&found) };
            self.fail(&differs(
                &format!("the attempts at `{topic}` in {}", self.name()),
                &attempts.to_string(),
                &found,
            ));
        }
        self
    }

    /// The attempts at messages of `topic` were settled so, in the order in which they began.
    #[track_caller]
    pub fn outcomes(&self, topic: &str, outcomes: impl IntoIterator<Item = Settlement>) -> &Self {
        let expected = outcomes.into_iter().map(Settlement::as_str).collect();
        let settled = self.processing(topic).map(|span| span.attributes.text(SETTLEMENT).unwrap_or("unknown"));
        self.compare(&format!("the outcomes at `{topic}`"), expected, settled.collect());
        self
    }

    /// The attempts at messages of `topic` that failed had these values of `error.type`, in the order in which they began.
    #[track_caller]
    pub fn errors<'t>(&self, topic: &str, error_types: impl IntoIterator<Item = &'t str>) -> &Self {
        let failed = self.processing(topic).filter(|span| span.is_error());
        let types = failed.map(|span| span.attributes.text("error.type").unwrap_or("unknown"));
        self.compare(&format!("the errors at `{topic}`"), error_types.into_iter().collect(), types.collect());
        self
    }

    /// A message that was given up was copied to this dead-letter topic, with its creation context.
    #[track_caller]
    pub fn dead_lettered(&self, dead_letter_topic: &str) -> &Self {
        let letters: Vec<&str> = self.dead_letters().map(Span::destination).collect();
        if !letters.contains(&dead_letter_topic) {
            let found = if letters.is_empty() { "no dead letter".to_owned() } else { list(&letters) };
            self.fail(&differs(&format!("the dead letters of {}", self.name()), dead_letter_topic, &found));
        }
        self
    }

    /// No message was dead-lettered.
    #[track_caller]
    pub fn not_dead_lettered(&self) -> &Self {
        self.compare("the dead letters", Vec::new(), self.dead_letters().map(Span::destination).collect());
        self
    }

    /// Another trace begins with a span called `root` and links to this one: what a delayed message, a replay or a job did.
    #[track_caller]
    pub fn linked(&self, root: &str) -> &Self {
        let _: Self = self.follow(root);
        self
    }

    /// The trace that begins with a span called `root` and links to this one, to go on from; the first, if there are several.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn follow(&self, root: &str) -> Self {
        let links_here = |other: &Self| other.links_out().any(|target| target.trace_id == self.trace().id());
        let linked: Vec<Self> = self.others().filter(links_here).collect();
        match linked.iter().find(|other| other.begins_with(root)) {
            Some(other) => other.clone(),
            None => {
                let names: Vec<&str> = linked.iter().map(|other| &*other.trace().spans()[0].name).collect();
                let found = if names.is_empty() { "no trace".to_owned() } else { list(&names) };
                self.fail(&differs(&format!("the traces that link to {}", self.name()), root, &found))
            }
        }
    }

    /// A span of this trace links to a trace that begins with a span called `root`.
    #[track_caller]
    pub fn links_to(&self, root: &str) -> &Self {
        let targets: Vec<SpanRef> = self.links_out().collect();
        let is_target = |other: &Self| targets.iter().any(|target| target.trace_id == other.trace().id());
        let linked: Vec<Self> = self.others().filter(is_target).collect();
        if !linked.iter().any(|other| other.begins_with(root)) {
            let names: Vec<&str> = linked.iter().map(|other| &*other.trace().spans()[0].name).collect();
            let found = if names.is_empty() { "no trace".to_owned() } else { list(&names) };
            self.fail(&differs(&format!("the traces that {} links to", self.name()), root, &found));
        }
        self
    }

    /// These services took part, in the order in which they appear.
    #[track_caller]
    pub fn services<'t>(&self, services: impl IntoIterator<Item = &'t str>) -> &Self {
        self.compare("the services", services.into_iter().collect(), self.trace().services());
        self
    }

    /// The spans have these names, in the order in which they started.
    #[track_caller]
    pub fn spans<'t>(&self, names: impl IntoIterator<Item = &'t str>) -> &Self {
        let found = self.trace().spans().iter().map(|span| &*span.name).collect();
        self.compare("the spans", names.into_iter().collect(), found);
        self
    }

    /// No message of `topic` waited longer than that in the queue before its first attempt.
    #[track_caller]
    pub fn queued_at_most(&self, topic: &str, limit: Duration) -> &Self {
        let deliveries = self.deliveries();
        let waits = deliveries.iter().filter(|hop| hop.topic() == topic && !hop.is_redelivery()).map(|hop| hop.queue);
        match waits.max() {
            Some(longest) if longest <= limit => self,
            Some(longest) => {
                let (what, limit) = (format!("the wait in `{topic}` of {}", self.name()), format!("at most {limit:?}"));
                self.fail(&differs(&what, &limit, &format!("{longest:?}")))
            }
            None => self.fail(&format!("{} processed nothing from `{topic}`", self.name())),
        }
    }

    /// The only span of that name.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[must_use]
    #[track_caller]
    pub fn span(&self, name: &str) -> &Span {
        let mut spans = self.trace().spans().iter().filter(|span| span.name == name);
        match (spans.next(), spans.count()) {
            (Some(span), 0) => span,
            (first, others) => {
                let count = others + usize::from(first.is_some());
                self.fail(&differs(&format!("the spans called `{name}` in {}", self.name()), "one", &count.to_string()))
            }
        }
    }

    fn name(&self) -> String {
        format!("the trace `{}`", self.trace().spans()[0].name)
    }

    /// The deliveries that were processed in this trace, wherever they were sent.
    fn deliveries(&self) -> Vec<Hop<'_>> {
        let mut hops = self.traces.hops();
        hops.retain(|hop| hop.process.trace_id == self.trace().id());
        hops
    }

    fn processing(&self, topic: &str) -> impl Iterator<Item = &Span> {
        self.trace().spans().iter().filter(move |span| span.is_processing() && span.destination() == topic)
    }

    /// The sends of this trace that copied what was given up: within its process span, linked to its creation context.
    fn dead_letters(&self) -> impl Iterator<Item = &Span> {
        let rejected = |span: &Span| {
            span.is_processing() && span.attributes.text(SETTLEMENT) == Some(Settlement::Rejected.as_str())
        };
        self.trace().spans().iter().filter(move |span| {
            let parent = span.parent_reference().and_then(|parent| self.traces.span(parent));
            let created = |link: &crate::verify::Link| self.traces.span(link.target).is_some_and(Span::is_producing);
            span.role() == Some(Operation::Send) && parent.is_some_and(rejected) && span.links.iter().any(created)
        })
    }

    fn links_out(&self) -> impl Iterator<Item = SpanRef> {
        self.trace().spans().iter().flat_map(|span| &span.links).map(|link| link.target)
    }

    fn others(&self) -> impl Iterator<Item = Self> {
        let others = (0..self.traces.len()).filter(|position| *position != self.position);
        others.map(|position| Self { position, ..self.clone() })
    }

    #[track_caller]
    fn compare(&self, what: &str, expected: Vec<&str>, found: Vec<&str>) {
        if expected != found {
            let sequence = |items: &[&str]| if items.is_empty() { "none".to_owned() } else { items.join(" → ") };
            self.fail(&differs(&format!("{what} of {}", self.name()), &sequence(&expected), &sequence(&found)));
        }
    }

    fn picture(&self, trace: &Trace) -> String {
        Waterfall::new(trace).within(&self.traces).report(&self.report).to_string()
    }

    #[track_caller]
    fn fail(&self, message: &str) -> ! {
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

fn process_of(hop: &Hop<'_>) -> SpanRef {
    hop.process.reference()
}

fn differs(what: &str, expected: &str, found: &str) -> String {
    format!("{what} differ\n  expected: {expected}\n  found:    {found}")
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
