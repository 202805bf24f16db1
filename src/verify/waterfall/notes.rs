//! What is said under a span: its error, its links, what was found wrong with it.

use std::collections::HashMap;

use super::Waterfall;
use super::line::Style;
use crate::verify::check::Finding;
use crate::verify::id::{SpanId, SpanRef, TraceId};
use crate::verify::span::{Span, Status};
use crate::verify::trace::{Trace, Traces};

/// Of more notes on links than this, one way, only the number is shown.
const MOST_LINKS: usize = 3;

/// A remark under a span.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::verify) struct Note {
    pub(in crate::verify) mark: Mark,
    pub(in crate::verify) text: String,
    /// The trace it points to, at the end of the text.
    pub(in crate::verify) trace: Option<TraceId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) enum Mark {
    /// Something failed.
    Bad,
    /// A link to elsewhere.
    To,
    /// A link to elsewhere that leads nowhere.
    Nowhere,
    /// A link from elsewhere.
    From,
}

impl Mark {
    pub(super) const fn style(self) -> Style {
        match self {
            Self::Bad | Self::Nowhere => Style::Bad,
            Self::To | Self::From => Style::Faint,
        }
    }
}

/// Where the remarks come from.
#[derive(Debug)]
pub(super) struct Notes<'a> {
    trace: &'a Trace,
    traces: Option<&'a Traces>,
    complete: bool,
    findings: HashMap<SpanId, Vec<&'a Finding>>,
    /// Spans of other traces, by what they link to in this one.
    incoming: HashMap<SpanId, Vec<&'a Span>>,
}

impl<'a> Notes<'a> {
    pub(super) fn of(waterfall: &Waterfall<'a>) -> Self {
        let (trace, traces) = (waterfall.trace, waterfall.traces);
        let mut findings: HashMap<_, Vec<_>> = HashMap::new();
        for finding in waterfall.findings.unwrap_or_default() {
            findings.entry(finding.span).or_default().push(finding);
        }
        let mut incoming: HashMap<_, Vec<_>> = HashMap::new();
        let others = traces.into_iter().flatten().filter(|other| other.id() != trace.id());
        for span in others.flat_map(Trace::spans) {
            for link in span.links.iter().filter(|link| link.target.trace_id == trace.id()) {
                incoming.entry(link.target.span_id).or_default().push(span);
            }
        }
        Self { trace, traces, complete: waterfall.complete, findings, incoming }
    }

    pub(super) fn under(&self, span: &Span) -> Vec<Note> {
        let mut notes: Vec<Note> = error(span).into_iter().collect();
        for finding in self.findings.get(&span.span_id).into_iter().flatten() {
            let text = format!("broken: {}", finding.kind);
            if !notes.iter().any(|note| note.text == text) {
                notes.push(Note { mark: Mark::Bad, text, trace: None });
            }
        }
        let elsewhere = |target: &SpanRef| Some(*target) != span.parent_reference();
        let targets = span.links.iter().map(|link| link.target).filter(elsewhere);
        notes.extend(some(targets.map(|target| self.to(target))));
        let sources = self.incoming.get(&span.span_id).into_iter().flatten();
        notes.extend(some(sources.map(|source| Note {
            mark: Mark::From,
            text: format!("linked from {} ({})", source.name, source.service),
            trace: Some(source.trace_id),
        })));
        notes
    }

    fn to(&self, target: SpanRef) -> Note {
        let here = target.trace_id == self.trace.id();
        let span =
            if here { self.trace.span(target.span_id) } else { self.traces.and_then(|traces| traces.span(target)) };
        let trace = Some(target.trace_id).filter(|_| !here);
        match span {
            Some(span) => Note { mark: Mark::To, text: format!("linked to {} ({})", span.name, span.service), trace },
            // Without the other traces at hand nothing can be said about what is in them.
            None if here || (self.traces.is_some() && self.complete) => {
                Note { mark: Mark::Nowhere, text: format!("linked to {}, not exported", target.span_id), trace }
            }
            None => Note { mark: Mark::To, text: format!("linked to {}", target.span_id), trace },
        }
    }
}

/// Equal notes in a row as one with their number; of what then remains the first ones, and the
/// number of the rest.
fn some(notes: impl Iterator<Item = Note>) -> Vec<Note> {
    let mut kept: Vec<(Note, usize)> = Vec::new();
    for note in notes {
        match kept.last_mut() {
            Some((last, count)) if *last == note => *count += 1,
            _ => kept.push((note, 1)),
        }
    }
    let shown = if kept.len() > MOST_LINKS + 1 { MOST_LINKS } else { kept.len() };
    let rest = kept.split_off(shown);
    let together = |(mut note, count): (Note, usize)| {
        if count > 1 {
            note.text.push_str(&format!(" ×{count}"));
        }
        note
    };
    let more: usize = rest.iter().map(|(_, count)| count).sum();
    let more = rest.first().map(|(note, _)| Note { mark: note.mark, text: format!("and {more} more"), trace: None });
    kept.into_iter().map(together).chain(more).collect()
}

/// What a failed span says about its failure.
fn error(span: &Span) -> Option<Note> {
    let Status::Error(message) = &span.status else {
        return None;
    };
    let exception = span.events.iter().rev().find(|event| event.name == "exception");
    let recorded = |name: &str| exception.and_then(|event| event.attributes.text(name));
    let message = Some(message.as_str()).filter(|message| !message.is_empty());
    let message = message.or_else(|| recorded("exception.message"));
    let class = span.attributes.text("error.type").or_else(|| recorded("exception.type"));
    let text = match (class, message) {
        (Some(class), Some(message)) if !message.contains(class) => format!("{class}: {message}"),
        (_, Some(text)) | (Some(text), None) => text.to_owned(),
        (None, None) => "failed without saying why".to_owned(),
    };
    Some(Note { mark: Mark::Bad, text, trace: None })
}
