//! Rules for any trace: references resolve, one root, no cycle, no duplicate id, times in order.

use super::finding::{Finding, FindingKind, named};
use crate::verify::resolve::Resolver;
use crate::verify::span::Span;
use crate::verify::trace::Trace;

pub(super) fn check(trace: &Trace, resolver: &Resolver<'_>, findings: &mut Vec<Finding>) {
    for (position, span) in trace.spans().iter().enumerate() {
        findings.extend(missing_parent(span, resolver));
        findings.extend(missing_links(span, resolver));
        findings.extend(lost_links(trace, span));
        findings.extend(times(span));
        findings.extend(duplicate(trace, position, span));
    }
    findings.extend(roots(trace));
    findings.extend(cycles(trace));
}

fn missing_parent(span: &Span, resolver: &Resolver<'_>) -> Option<Finding> {
    let parent = span.parent.filter(|_| resolver.parent(span).is_none())?;
    let cause = if span.is_processing() {
        "the sender injected a context that belongs to no recorded span, or its span was sampled \
         away, was dropped by its exporter, or has not arrived yet"
    } else {
        "the parent was sampled away, was dropped by its exporter, has not ended, or has not \
         arrived yet"
    };
    let message = format!("{} is a child of span {parent}, which was not exported: {cause}", named(span));
    Some(Finding::on(span, FindingKind::MissingParent, message))
}

/// Finds links to spans that were not exported. A link to a missing parent is not reported again.
fn missing_links(span: &Span, resolver: &Resolver<'_>) -> impl Iterator<Item = Finding> {
    let missing = span
        .links
        .iter()
        .map(|link| link.target)
        .filter(|target| resolver.span(*target).is_none())
        .filter(|target| Some(*target) != span.parent_reference());
    missing.map(|target| {
        let what = if target.trace_id.is_zero() || target.span_id.is_zero() {
            "links to a context without ids: a message without a context was linked all the same".to_owned()
        } else {
            let id = target.span_id;
            let (place, elsewhere) = if target.trace_id == span.trace_id {
                ("of this trace".to_owned(), "")
            } else {
                (format!("of trace {}", target.trace_id), ", or lies in a trace that was not read")
            };
            format!(
                "links to span {id} {place}, which was not exported: it was sampled away, was \
                 dropped by its exporter, has not arrived yet{elsewhere}"
            )
        };
        Finding::on(span, FindingKind::MissingLink, format!("{} {what}", named(span)))
    })
}

/// Finds lost links. If a batch has more messages than a span keeps links for, child spans with the
/// same name have the remaining links.
fn lost_links(trace: &Trace, span: &Span) -> Option<Finding> {
    let (kept, dropped) = (span.links.len(), span.dropped_links);
    let message = if dropped > 0 {
        format!(
            "{} lost {dropped} of its {} links: the SDK keeps a limited number per span (128 by \
             default)",
            named(span),
            kept as u64 + u64::from(dropped)
        )
    } else {
        // Without any link, the lack of a context is reported instead.
        let messages = span.batch_size().filter(|size| span.is_processing() && kept > 0 && *size > kept)?;
        let holds_more = |other: &&Span| other.parent == Some(span.span_id) && other.name == span.name;
        let kept = kept + trace.spans().iter().filter(holds_more).map(|other| other.links.len()).sum::<usize>();
        if kept >= messages {
            return None;
        }
        format!(
            "{} handled {messages} messages but links only {kept}: the others came without a \
             context, or their links were not added",
            named(span)
        )
    };
    Some(Finding::on(span, FindingKind::LostLinks, message))
}

fn times(span: &Span) -> Option<Finding> {
    let (kind, what) = match (span.start, span.end) {
        (0, _) => (FindingKind::Unfinished, "has no start time: it was recorded by hand, or read incompletely"),
        (_, 0) => (
            FindingKind::Unfinished,
            "has no end time: its handler still runs, was cancelled, or the process died before \
             the span ended",
        ),
        (start, end) if end < start => (
            FindingKind::ReversedTimes,
            "ends before it starts: the clock was set back meanwhile, or the times were given by \
             hand",
        ),
        _ => return None,
    };
    Some(Finding::on(span, kind, format!("{} {what}", named(span))))
}

fn duplicate(trace: &Trace, position: usize, span: &Span) -> Option<Finding> {
    let first = trace.position(span.span_id).filter(|first| *first != position)?;
    let message = format!(
        "{} has the id {} that {} has as well: an id generator had the same seed in two processes, \
         or a span was exported twice with changes",
        named(span),
        span.span_id,
        named(&trace.spans()[first])
    );
    Some(Finding::on(span, FindingKind::DuplicateSpan, message))
}

fn roots(trace: &Trace) -> impl Iterator<Item = Finding> {
    let mut roots = trace.roots();
    let first = roots.next();
    roots.map(move |root| {
        let first = first.map(named).unwrap_or_default();
        let message = format!(
            "{} has no parent, but {first} is the root of this trace already: a trace id was \
             reused, or the parent was lost where the context was restored",
            named(root)
        );
        Finding::on(root, FindingKind::SeveralRoots, message)
    })
}

/// Returns one finding for each cycle of parents, on its earliest span.
fn cycles(trace: &Trace) -> Vec<Finding> {
    let parent = |position: usize| trace.spans()[position].parent.and_then(|id| trace.position(id));
    // The number of the walk that first visited each span; 0 means not visited. A walk that meets
    // itself has found a new cycle.
    let mut walks = vec![0_usize; trace.spans().len()];
    let mut findings = Vec::new();
    for start in 0..walks.len() {
        let walk = start + 1;
        let mut next = Some(start);
        while let Some(position) = next.filter(|position| walks[*position] == 0) {
            walks[position] = walk;
            next = parent(position);
        }
        if let Some(entry) = next.filter(|position| walks[*position] == walk) {
            let around =
                std::iter::successors(parent(entry), |position| parent(*position).filter(|_| *position != entry));
            let members: Vec<usize> = around.collect();
            let first = &trace.spans()[members.iter().copied().min().unwrap_or(entry)];
            let message = format!(
                "{} is its own ancestor, {} up: two spans share an id, or parents were set by hand",
                named(first),
                if members.len() == 1 { "one step".to_owned() } else { format!("{} steps", members.len()) }
            );
            findings.push(Finding::on(first, FindingKind::ParentCycle, message));
        }
    }
    findings
}
