//! Where a trace broke: the last good span, what is missing after it, and what likely caused that.

use std::collections::HashSet;
use std::fmt;

use traced_broker::verify::{Finding, FindingKind, Hop, Operation, Span, SpanId, Trace};

use super::judge::Met;
use super::stray::Stray;

/// One place where a trace broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Break {
    /// The last span before it; `None` when nothing before it is known.
    pub(super) last_good: Option<Place>,
    /// What should be there and is not, each in a few words.
    pub(super) missing: Vec<String>,
    /// What may have happened.
    pub(super) causes: Vec<Cause>,
    /// What took the message in a trace of its own, if that was looked for and found.
    pub(super) stray: Option<Stray>,
}

/// A span, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) span: SpanId,
    pub(super) name: String,
    pub(super) service: String,
}

/// What breaks traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The send failed.
    SendFailed,
    /// Nothing was sent.
    NotReached,
    /// The message has no context.
    NoHeader,
    /// The message lost its context.
    HeaderDropped,
    /// The message has a context that nobody read.
    NotExtracted,
    /// The message has the context of another span than the one that sent it.
    WrongSpan,
    /// Not recorded.
    SampledAway,
    /// Recorded and lost.
    ExporterDropped,
    /// On its way.
    NotArrived,
}

/// Of more findings than this the rest is left to the list of findings: a root that is missing orphans every child.
const MOST: usize = 12;

/// What may be the matter with a span that is somewhere, but not in the backend.
const ABSENT: [Cause; 3] = [Cause::SampledAway, Cause::ExporterDropped, Cause::NotArrived];
/// What may be the matter with a message whose processing does not know who sent it.
const SEVERED: [Cause; 3] = [Cause::NoHeader, Cause::HeaderDropped, Cause::NotExtracted];

impl Cause {
    /// For programs.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::SendFailed => "send_failed",
            Self::NotReached => "not_reached",
            Self::NoHeader => "no_header",
            Self::HeaderDropped => "header_dropped",
            Self::NotExtracted => "not_extracted",
            Self::WrongSpan => "wrong_span",
            Self::SampledAway => "sampled_away",
            Self::ExporterDropped => "exporter_dropped",
            Self::NotArrived => "not_arrived",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SendFailed => "the send failed, so that nothing came into the queue",
            Self::NotReached => "the service did not get as far as to send it, or does not trace its sends",
            Self::NoHeader => {
                "the producer wrote no context header, or one that is none, so that the consumer began a trace of its own"
            },
            Self::HeaderDropped => "the header was dropped at the broker, or by what copies messages there",
            Self::NotExtracted => "the consumer did not extract the context from the message",
            Self::WrongSpan => "the producer wrote the context of a span that it never exported",
            Self::SampledAway => "the span was sampled away, in the service or in the Collector",
            Self::ExporterDropped => "the exporter dropped the span: its queue was full, or its process ended early",
            Self::NotArrived => {
                "it has not arrived yet: the message still waits, the span has not ended or is underway"
            }
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of {} (span {})", self.name, self.service, self.span)
    }
}

impl Break {
    /// Whether the context may have been lost, or only the spans: the one leaves a trace that begins with the message.
    pub(super) fn is_doubtful(&self) -> bool {
        let has = |causes: &[Cause]| causes.iter().all(|cause| self.causes.contains(cause));
        has(&SEVERED) && has(&ABSENT)
    }

    /// Puts first what is more likely after such traces were looked for.
    pub(super) fn learn(&mut self, strays: Vec<Stray>) {
        self.stray = strays.into_iter().next();
        self.causes = match self.stray {
            Some(_) => SEVERED.to_vec(),
            None => ABSENT.into_iter().chain(SEVERED).collect(),
        };
    }

    /// Whether what is missing was not even sent.
    fn is_unsent(&self) -> bool {
        self.causes.first() == Some(&Cause::NotReached)
    }

    /// Whether the trace ends there because nothing took the message: then nobody got as far as to send the next.
    fn is_after_one_of(&self, unread: &[&Span]) -> bool {
        let last_good = self.last_good.as_ref();
        last_good.is_some_and(|place| unread.iter().any(|send| send.span_id == place.span))
    }
}

impl Place {
    pub(super) fn of(span: &Span) -> Self {
        Self { span: span.span_id, name: span.name.clone(), service: span.service.to_string() }
    }
}

/// Every place where the trace broke; what belongs to one place is told as one.
pub(super) fn breaks(
    trace: &Trace,
    hops: &[Hop<'_>],
    findings: &[Finding],
    expectations: &[Met],
    sampled: Option<bool>,
) -> Vec<Break> {
    let unread = unread(trace, hops);
    let found = findings.iter().filter_map(|finding| of_finding(trace, &unread, finding)).take(MOST);
    let mut unmet: Vec<_> = expectations.iter().filter(|met| !met.is_met()).collect();
    // What was sent and not processed comes before what was to come of it.
    unmet.sort_by_key(|met| topic(met).is_some_and(|topic| last_to(&unread, topic).is_none()));
    let expected = unmet.into_iter().map(|met| of_expectation(trace, &unread, findings, met));
    // What was never sent comes last: it may be a consequence of the others.
    let (unsent, broken): (Vec<_>, Vec<_>) = found.chain(expected).partition(Break::is_unsent);
    let mut breaks: Vec<Break> = Vec::new();
    for mut next in broken.into_iter().chain(unsent) {
        if let Some(before) = breaks.iter_mut().find(|before| next.is_unsent() && before.is_after_one_of(&unread)) {
            before.missing.append(&mut next.missing);
            continue;
        }
        if sampled == Some(false) {
            next.causes = vec![Cause::SampledAway];
        }
        match breaks.iter_mut().find(|one| one.last_good == next.last_good && one.causes == next.causes) {
            Some(one) => one.missing.append(&mut next.missing),
            None => breaks.push(next),
        }
    }
    breaks
}

/// The spans that put a message into a queue out of which nothing in the trace took it.
fn unread<'a>(trace: &'a Trace, hops: &[Hop<'_>]) -> Vec<&'a Span> {
    let read = hops.iter().flat_map(|hop| [hop.creation, hop.send]).flatten().map(Span::reference);
    let read: HashSet<_> = read.collect();
    let sends = trace.spans().iter().filter(|span| span.role() == Some(Operation::Send));
    sends.filter(|span| !read.contains(&span.reference())).collect()
}

/// What a finding says about a place; the others speak for themselves.
fn of_finding(trace: &Trace, unread: &[&Span], finding: &Finding) -> Option<Break> {
    let span = trace.span(finding.span)?;
    let sent = || last_to(unread, span.destination()).filter(|_| span.is_processing()).map(Place::of);
    let after = format!("`{}` of {}", span.name, span.service);
    let (last_good, missing, causes) = match finding.kind {
        FindingKind::MissingParent if span.is_processing() => {
            let missing = format!("the span that sent what {after} processed");
            match sent() {
                Some(sent) => (Some(sent), missing, [Cause::WrongSpan].into_iter().chain(ABSENT).collect()),
                // Whoever sent it is not there at all.
                None => (before(trace, unread, span), missing, ABSENT.to_vec()),
            }
        }
        FindingKind::MissingParent => (before(trace, unread, span), format!("the parent of {after}"), ABSENT.to_vec()),
        FindingKind::MissingLink => {
            (trace.span(span.span_id).map(Place::of), format!("what {after} links to"), ABSENT.to_vec())
        }
        FindingKind::NoContext => (sent(), format!("the context of what {after} processed"), SEVERED.to_vec()),
        _ => return None,
    };
    Some(Break { last_good, missing: vec![missing], causes, stray: None })
}

/// The last span of the same service that is part of the trace and began before `span`; for a service without one, what
/// was sent last and is not read: that is how the trace came there.
fn before(trace: &Trace, unread: &[&Span], span: &Span) -> Option<Place> {
    let earlier = || trace.spans().iter().filter(|other| other.start <= span.start && other.span_id != span.span_id);
    let attached = || earlier().filter(|other| other.parent.is_none_or(|parent| trace.span(parent).is_some()));
    let own = attached().filter(|other| other.service == span.service).max_by_key(|other| other.start);
    let sent = unread.iter().copied().filter(|send| send.start <= span.start).max_by_key(|send| send.start);
    own.or(sent).or_else(|| attached().max_by_key(|other| other.start)).map(Place::of)
}

/// Whether what came after `send` is in the trace, without the span that it hangs on: then the context did arrive.
fn continues(trace: &Trace, findings: &[Finding], send: &Span) -> bool {
    let orphans = findings.iter().filter(|finding| finding.kind == FindingKind::MissingParent);
    let mut orphans = orphans.filter_map(|finding| trace.span(finding.span));
    // One that processed this very message has the context of another span: that says nothing of this one.
    let is_of = |span: &Span| span.is_processing() && leads_to(send, span.destination());
    orphans.any(|span| !is_of(span) && span.service != send.service && span.start >= send.start)
}

fn of_expectation(trace: &Trace, unread: &[&Span], findings: &[Finding], met: &Met) -> Break {
    let missing = match met.found {
        0 => met.expectation.to_string(),
        found => format!("{}: there are {found}", met.expectation),
    };
    let sent = match topic(met) {
        Some(topic) => last_to(unread, topic).or_else(|| stopped_after(trace, unread)),
        None => unread.iter().copied().max_by_key(|span| span.start),
    };
    let (last_good, causes) = match sent {
        Some(send) if send.is_error() => (Some(Place::of(send)), vec![Cause::SendFailed]),
        Some(send) if continues(trace, findings, send) => (Some(Place::of(send)), ABSENT.to_vec()),
        Some(send) => (Some(Place::of(send)), SEVERED.into_iter().chain(ABSENT).collect()),
        None => {
            let bad: HashSet<SpanId> = findings.iter().map(|finding| finding.span).collect();
            let good = |span: &&Span| !bad.contains(&span.span_id);
            let last = trace.spans().iter().filter(good).max_by_key(|span| span.start);
            (last.map(Place::of), [Cause::NotReached].into_iter().chain(ABSENT).collect())
        }
    };
    Break { last_good, missing: vec![missing], causes, stray: None }
}

/// The topic of the messages whose processing is expected.
fn topic(met: &Met) -> Option<&str> {
    met.expectation.span.as_deref().and_then(|name| name.strip_prefix("process "))
}

/// The last message that was not read, if no other service has a span after it: whatever else is missing was to come of it.
fn stopped_after<'a>(trace: &Trace, unread: &[&'a Span]) -> Option<&'a Span> {
    let last = unread.iter().copied().max_by_key(|span| span.start)?;
    let goes_on = trace.spans().iter().any(|span| span.service != last.service && span.start >= last.start);
    (!goes_on).then_some(last)
}

/// The last message that was sent to `topic` and not read.
fn last_to<'a>(unread: &[&'a Span], topic: &str) -> Option<&'a Span> {
    unread.iter().filter(|send| leads_to(send, topic)).max_by_key(|span| span.start).copied()
}

/// Whether what was sent comes out at `topic`.
pub(super) fn leads_to(send: &Span, topic: &str) -> bool {
    let to = send.destination();
    // A consumer on RabbitMQ may name its queue after what the producer names.
    to == topic || topic.strip_prefix(to).is_some_and(|rest| !to.is_empty() && rest.starts_with(':'))
}
