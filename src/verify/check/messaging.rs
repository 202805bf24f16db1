//! Rules for messages: the sender, the order in time, and the work inside the process span.

use super::finding::{Finding, FindingKind, named};
use crate::verify::hop::QueueHop;
use crate::verify::latency::HumanDuration;
use crate::verify::resolve::Resolver;
use crate::verify::span::{Kind, Span};
use crate::verify::trace::Trace;

pub(super) fn check(trace: &Trace, resolver: &Resolver<'_>, hops: &[QueueHop<'_>], findings: &mut Vec<Finding>) {
    for span in trace.spans() {
        findings.extend(wrong_kind(span));
        if span.is_processing() {
            findings.extend(empty(span));
            findings.extend(creation(span, resolver));
        }
        findings.extend(outside(span, resolver));
    }
    findings.extend(hops.iter().filter_map(before_sent));
}

fn wrong_kind(span: &Span) -> Option<Finding> {
    let operation = span.operation().filter(|operation| !operation.kinds().contains(&span.kind))?;
    let wanted: Vec<_> = operation.kinds().iter().map(|kind| kind.as_str()).collect();
    let message = format!(
        "{} is a {} span of kind {} instead of {}: the instrumentation does not follow the \
         messaging conventions, and backends will not see the queue",
        named(span),
        operation.as_str(),
        span.kind.as_str(),
        wanted.join(" or ")
    );
    Some(Finding::on(span, FindingKind::WrongKind, message))
}

fn empty(span: &Span) -> Option<Finding> {
    if span.start == 0 || span.start != span.end {
        return None;
    }
    let message = format!(
        "{} takes no time at all: it was ended before the handler ran, so that the work lies \
         outside of it",
        named(span)
    );
    Some(Finding::on(span, FindingKind::EmptyProcess, message))
}

/// Checks that the context in the message is that of the span that sent or created it, and is
/// linked.
fn creation(span: &Span, resolver: &Resolver<'_>) -> Option<Finding> {
    let links = || span.links.iter().map(|link| link.target);
    if links().any(|target| resolver.span(target).is_none_or(Span::is_producing)) {
        // Linked, or linked to a missing span, which is reported separately.
        return None;
    }
    let (kind, what) = match (span.parent, resolver.parent(span)) {
        (Some(_), None) => return None,
        (Some(_), Some(parent)) if parent.is_producing() => (
            FindingKind::NoCreationLink,
            format!("is a child of {} without linking it: the consumer only sets the parent", named(parent)),
        ),
        (None, _) if span.links.is_empty() => (
            FindingKind::NoContext,
            "is tied to no sender: the producer wrote no context header, the header was dropped \
             on the way, or the consumer did not extract it"
                .to_owned(),
        ),
        (_, parent) => {
            let tied = parent.or_else(|| links().find_map(|target| resolver.span(target)));
            (
                FindingKind::WrongContext,
                format!(
                    "continues {}, which neither sends nor creates a message: the producer \
                     injected the context around the send instead of the send's own, or the \
                     consumer took its ambient context for the message's",
                    tied.map(named).unwrap_or_default()
                ),
            )
        }
    };
    Some(Finding::on(span, kind, format!("{} {what}", named(span))))
}

/// Checks that the work a handler starts begins between the start and the end of its process span.
/// It may end later, because work may be left running. Children in other services are not the
/// handler's own, and their clocks differ.
fn outside(span: &Span, resolver: &Resolver<'_>) -> Option<Finding> {
    let process = resolver.parent(span).filter(|parent| parent.is_processing() && parent.duration() > 0)?;
    if span.service != process.service || span.start == 0 || matches!(span.kind, Kind::Consumer | Kind::Server) {
        return None;
    }
    let what = if span.start < process.start {
        "starts before its process span"
    } else if span.start > process.end {
        "starts after its process span ended"
    } else {
        return None;
    };
    let message = format!(
        "{} {what} {}: the process span does not last from before the handler until after it \
         settled",
        named(span),
        named(process)
    );
    Some(Finding::on(span, FindingKind::OutsideProcess, message))
}

fn before_sent(hop: &QueueHop<'_>) -> Option<Finding> {
    let (send, process) = (hop.send?, hop.process);
    if process.start == 0 || process.start >= send.start {
        return None;
    }
    let early = std::time::Duration::from_nanos(send.start - process.start);
    let message = format!(
        "{} starts {} before {}, which sent its message: the clocks of the two machines differ, \
         or the link leads to the wrong message",
        named(process),
        HumanDuration(early),
        named(send)
    );
    Some(Finding::on(process, FindingKind::ProcessedBeforeSent, message))
}
