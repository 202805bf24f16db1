//! The diagnosis of a broken trace: the last good span, the missing parts, and the likely causes.

use std::collections::HashSet;

use traced_broker::verify::{Finding, FindingKind, QueueHop, Span, SpanId, Trace};

use super::broken::{ABSENT, Break, Cause, SEVERED, SpanSummary, leads_to, unread};
use super::expectation::ExpectationResult;

/// Maximum number of diagnosed findings; the list of findings contains all. A missing root orphans
/// every child.
const MAX_FINDINGS: usize = 12;

/// Returns every break of the trace; findings with the same last good span and causes are one
/// break.
pub(super) fn breaks(
    trace: &Trace,
    hops: &[QueueHop<'_>],
    findings: &[Finding],
    results: &[ExpectationResult],
    sampled: Option<bool>,
) -> Vec<Break> {
    let unread = unread(trace, hops);
    let found = findings.iter().filter_map(|finding| of_finding(trace, &unread, finding)).take(MAX_FINDINGS);
    let mut unmet: Vec<_> = results.iter().filter(|result| !result.is_met()).collect();
    // Messages that were sent but not processed come before messages that depend on them.
    unmet.sort_by_key(|result| result.expectation.topic().is_some_and(|topic| last_to(&unread, topic).is_none()));
    let expected = unmet.into_iter().map(|result| of_expectation(trace, &unread, findings, result));
    // Unsent messages come last, because they may be a consequence of the other breaks.
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

/// Returns the break that a finding shows; `None` if the finding is not a break.
fn of_finding(trace: &Trace, unread: &[&Span], finding: &Finding) -> Option<Break> {
    let span = trace.span(finding.span)?;
    let sent = || last_to(unread, span.destination()).filter(|_| span.is_processing()).map(SpanSummary::new);
    let name = format!("`{}` of {}", span.name, span.service);
    let (last_good, missing, causes) = match finding.kind {
        FindingKind::MissingParent if span.is_processing() => {
            let missing = format!("the span that sent the message that {name} processed");
            match sent() {
                Some(sent) => (Some(sent), missing, [Cause::WrongSpan].into_iter().chain(ABSENT).collect()),
                // The span that sent the message is not in the trace.
                None => (before(trace, unread, span), missing, ABSENT.to_vec()),
            }
        }
        FindingKind::MissingParent => (before(trace, unread, span), format!("the parent of {name}"), ABSENT.to_vec()),
        FindingKind::MissingLink => {
            (trace.span(span.span_id).map(SpanSummary::new), format!("the span that {name} links to"), ABSENT.to_vec())
        }
        FindingKind::NoContext => {
            (sent(), format!("the context of the message that {name} processed"), SEVERED.to_vec())
        }
        _ => return None,
    };
    Some(Break { last_good, missing: vec![missing], causes, stray: None })
}

/// Returns the last earlier span of the same service that is connected to the trace.
///
/// If there is none, returns the last unread send span, which is how the trace reached the service,
/// or else the last connected span of any service.
fn before(trace: &Trace, unread: &[&Span], span: &Span) -> Option<SpanSummary> {
    let earlier = || trace.spans().iter().filter(|other| other.start <= span.start && other.span_id != span.span_id);
    let attached = || earlier().filter(|other| other.parent.is_none_or(|parent| trace.span(parent).is_some()));
    let own = attached().filter(|other| other.service == span.service).max_by_key(|other| other.start);
    let sent = unread.iter().copied().filter(|send| send.start <= span.start).max_by_key(|send| send.start);
    own.or(sent).or_else(|| attached().max_by_key(|other| other.start)).map(SpanSummary::new)
}

/// Returns `true` if the trace continues after `send` in another service, although a parent span is
/// missing; then the context did arrive.
fn continues(trace: &Trace, findings: &[Finding], send: &Span) -> bool {
    let orphans = findings.iter().filter(|finding| finding.kind == FindingKind::MissingParent);
    let mut orphans = orphans.filter_map(|finding| trace.span(finding.span));
    // A span that processed this message has the context of another span, so it does not count.
    let is_of = |span: &Span| span.is_processing() && leads_to(send, span.destination());
    orphans.any(|span| !is_of(span) && span.service != send.service && span.start >= send.start)
}

fn of_expectation(trace: &Trace, unread: &[&Span], findings: &[Finding], result: &ExpectationResult) -> Break {
    let missing = match result.found {
        0 => result.expectation.to_string(),
        found => format!("{}: found {found}", result.expectation),
    };
    let sent = match result.expectation.topic() {
        Some(topic) => last_to(unread, topic).or_else(|| stopped_after(trace, unread)),
        None => unread.iter().copied().max_by_key(|span| span.start),
    };
    let (last_good, causes) = match sent {
        Some(send) if send.is_error() => (Some(SpanSummary::new(send)), vec![Cause::SendFailed]),
        Some(send) if continues(trace, findings, send) => (Some(SpanSummary::new(send)), ABSENT.to_vec()),
        Some(send) => (Some(SpanSummary::new(send)), SEVERED.into_iter().chain(ABSENT).collect()),
        None => {
            let bad: HashSet<SpanId> = findings.iter().map(|finding| finding.span).collect();
            let good = |span: &&Span| !bad.contains(&span.span_id);
            let last = trace.spans().iter().filter(good).max_by_key(|span| span.start);
            (last.map(SpanSummary::new), [Cause::NotReached].into_iter().chain(ABSENT).collect())
        }
    };
    Break { last_good, missing: vec![missing], causes, stray: None }
}

/// Returns the last unread send span if no other service has a span after it; other missing spans
/// depend on its message.
fn stopped_after<'a>(trace: &Trace, unread: &[&'a Span]) -> Option<&'a Span> {
    let last = unread.iter().copied().max_by_key(|span| span.start)?;
    let goes_on = trace.spans().iter().any(|span| span.service != last.service && span.start >= last.start);
    (!goes_on).then_some(last)
}

/// Returns the last unread send span of a message to `topic`.
fn last_to<'a>(unread: &[&'a Span], topic: &str) -> Option<&'a Span> {
    unread.iter().filter(|send| leads_to(send, topic)).max_by_key(|span| span.start).copied()
}
