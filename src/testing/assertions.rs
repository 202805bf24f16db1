//! The assertions on a captured trace.

use crate::names::attribute;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::captured::CapturedTrace;
use crate::broker::Settlement;
use crate::verify::{FindingKind, QueueHop, Span, SpanRef};

impl CapturedTrace {
    /// Asserts that every parent and every link leads to a captured span, every span has ended,
    /// every message carried the context of the span that sent it, and the trace has none of the
    /// other faults that [`FindingKind`] lists.
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

    /// Asserts that messages were processed from these topics, in the order of their first
    /// attempts, including dead letters.
    #[track_caller]
    pub fn hops<'t>(&self, topics: impl IntoIterator<Item = &'t str>) -> &Self {
        let repeated: Vec<SpanRef> =
            self.deliveries().iter().filter(|hop| hop.is_redelivery()).map(process_of).collect();
        let processing = self.trace().spans().iter().filter(|span| span.is_processing());
        let first = processing.filter(|span| !repeated.contains(&span.reference()));
        self.compare("the hops", topics.into_iter().collect(), first.map(Span::destination).collect());
        self
    }

    /// Asserts that every message of `topic` that was processed in this trace had this number of
    /// attempts.
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

    /// Asserts that the attempts at messages of `topic` were settled like this, in the order in
    /// which they began.
    #[track_caller]
    pub fn outcomes(&self, topic: &str, outcomes: impl IntoIterator<Item = Settlement>) -> &Self {
        let expected = outcomes.into_iter().map(Settlement::as_str).collect();
        let settled =
            self.processing(topic).map(|span| span.attributes.text(attribute::SETTLEMENT).unwrap_or("unknown"));
        self.compare(&format!("the outcomes at `{topic}`"), expected, settled.collect());
        self
    }

    /// Asserts that the failed attempts at messages of `topic` had these values of `error.type`, in
    /// the order in which they began.
    #[track_caller]
    pub fn errors<'t>(&self, topic: &str, error_types: impl IntoIterator<Item = &'t str>) -> &Self {
        let failed = self.processing(topic).filter(|span| span.is_error());
        let types = failed.map(|span| span.attributes.text(attribute::ERROR_TYPE).unwrap_or("unknown"));
        self.compare(&format!("the errors at `{topic}`"), error_types.into_iter().collect(), types.collect());
        self
    }

    /// Asserts that a rejected message was copied to this dead-letter topic, with its creation
    /// context.
    #[track_caller]
    pub fn dead_lettered(&self, dead_letter_topic: &str) -> &Self {
        let letters: Vec<&str> = self.dead_letters().map(Span::destination).collect();
        if !letters.contains(&dead_letter_topic) {
            let found = if letters.is_empty() { "no dead letter".to_owned() } else { list(&letters) };
            self.fail(&differs(&format!("the dead letters of {}", self.name()), dead_letter_topic, &found));
        }
        self
    }

    /// Asserts that no message was dead-lettered.
    #[track_caller]
    pub fn not_dead_lettered(&self) -> &Self {
        self.compare("the dead letters", Vec::new(), self.dead_letters().map(Span::destination).collect());
        self
    }

    /// Asserts that another trace begins with a span called `root` and links to this one, as a
    /// delayed message, a replay or a job does.
    #[track_caller]
    pub fn linked(&self, root: &str) -> &Self {
        let _: Self = self.follow(root);
        self
    }

    /// Returns the trace that begins with a span called `root` and links to this one, for further
    /// assertions; the first, if there are several.
    ///
    /// # Panics
    /// If there is none.
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

    /// Asserts that a span of this trace links to a trace that begins with a span called `root`.
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

    /// Asserts that these services took part, in the order in which they appear.
    #[track_caller]
    pub fn services<'t>(&self, services: impl IntoIterator<Item = &'t str>) -> &Self {
        self.compare("the services", services.into_iter().collect(), self.trace().services());
        self
    }

    /// Asserts that the spans have these names, in the order in which they started.
    #[track_caller]
    pub fn spans<'t>(&self, names: impl IntoIterator<Item = &'t str>) -> &Self {
        let found = self.trace().spans().iter().map(|span| &*span.name).collect();
        self.compare("the spans", names.into_iter().collect(), found);
        self
    }

    /// Asserts that no message of `topic` waited longer than `limit` in the queue before its first
    /// attempt.
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

    /// Returns the only span with this name.
    ///
    /// # Panics
    /// If there is none, or more than one.
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

    #[track_caller]
    fn compare(&self, what: &str, expected: Vec<&str>, found: Vec<&str>) {
        if expected != found {
            let sequence = |items: &[&str]| if items.is_empty() { "none".to_owned() } else { items.join(" → ") };
            self.fail(&differs(&format!("{what} of {}", self.name()), &sequence(&expected), &sequence(&found)));
        }
    }
}

fn process_of(hop: &QueueHop<'_>) -> SpanRef {
    hop.process.reference()
}

fn differs(what: &str, expected: &str, found: &str) -> String {
    format!("{what} differ\n  expected: {expected}\n  found:    {found}")
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
