//! The notes under a span: its error, its links, and its findings.

use super::Section;
use crate::names::attribute;
use crate::verify::id::{SpanRef, TraceId};
use crate::verify::span::{Span, Status};

/// Number of notes on links shown in one direction if there are too many; the rest is counted.
const MOST_LINKS: usize = 3;

/// A note under a span.
#[derive(Clone, Debug)]
pub(in crate::verify) struct Note<'a> {
    /// The span above the note.
    pub(in crate::verify) about: &'a Span,
    pub(in crate::verify) mark: Mark,
    pub(in crate::verify) text: String,
    /// The other trace that the note points to, appended to the text.
    pub(in crate::verify) trace: Option<TraceId>,
    /// The span that the note points to, if it is known; the first one if there are several.
    pub(in crate::verify) target: Option<SpanRef>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) enum Mark {
    /// A failure.
    Bad,
    /// A link to another span.
    To,
    /// A link to a span that was not exported.
    Nowhere,
    /// A link from another trace.
    From,
}

impl Note<'_> {
    /// Returns the text with its mark, for documents.
    pub(in crate::verify) fn marked(&self) -> (&'static str, String) {
        let mark = match self.mark {
            Mark::Bad => "✗",
            Mark::To | Mark::Nowhere => "↳",
            Mark::From => "↰",
        };
        let trace = self.trace.map_or(String::new(), |trace| format!(", trace {trace}"));
        (mark, format!("{}{trace}", self.text))
    }

    /// Returns the class of the note in documents.
    pub(in crate::verify) const fn class(&self) -> &'static str {
        if matches!(self.mark, Mark::Bad | Mark::Nowhere) { "note bad" } else { "note" }
    }
}

impl<'a> Section<'a> {
    /// Returns the notes under a span.
    pub(super) fn notes(&self, span: &'a Span) -> Vec<Note<'a>> {
        let note = |mark, text| Note { about: span, mark, text, trace: None, target: None };
        let mut notes: Vec<Note<'_>> = error(span).map(|text| note(Mark::Bad, text)).into_iter().collect();
        for finding in self.findings(span) {
            let text = format!("broken: {}", finding.kind);
            if !notes.iter().any(|note| note.text == text) {
                notes.push(note(Mark::Bad, text));
            }
        }
        let elsewhere = |target: &SpanRef| Some(*target) != span.parent_reference();
        let targets = span.links.iter().map(|link| link.target).filter(elsewhere);
        notes.extend(some(targets.map(|target| {
            let here = target.trace_id == self.trace.id();
            let (mark, text) = match self.resolve(target) {
                Some(span) => (Mark::To, format!("linked to {} ({})", span.name, span.service)),
                // Without the other traces it is unknown whether they contain the target.
                None if here || (self.among.is_some() && self.complete) => {
                    (Mark::Nowhere, format!("linked to {}, not exported", target.span_id))
                }
                None => (Mark::To, format!("linked to {}", target.span_id)),
            };
            let trace = Some(target.trace_id).filter(|_| !here);
            Note { trace, target: self.resolve(target).map(|_| target), ..note(mark, text) }
        })));
        notes.extend(some(self.incoming(span).iter().map(|source| Note {
            trace: Some(source.trace_id),
            target: Some(source.reference()),
            ..note(Mark::From, format!("linked from {} ({})", source.name, source.service))
        })));
        notes
    }
}

/// Merges consecutive notes that read the same into one with their number; if too many remain,
/// keeps the first ones and the number of the rest.
fn some<'a>(notes: impl Iterator<Item = Note<'a>>) -> Vec<Note<'a>> {
    let mut kept: Vec<(Note<'_>, usize)> = Vec::new();
    let key = |note: &Note<'_>| (note.mark, note.trace);
    for note in notes {
        match kept.last_mut() {
            Some((last, count)) if key(last) == key(&note) && last.text == note.text => *count += 1,
            _ => kept.push((note, 1)),
        }
    }
    let shown = if kept.len() > MOST_LINKS + 1 { MOST_LINKS } else { kept.len() };
    let rest = kept.split_off(shown);
    let together = |(mut note, count): (Note<'a>, usize)| {
        if count > 1 {
            note.text.push_str(&format!(" ×{count}"));
        }
        note
    };
    let more: usize = rest.iter().map(|(_, count)| count).sum();
    let more = rest.into_iter().next().map(|(note, _)| Note {
        text: format!("and {more} more"),
        trace: None,
        target: None,
        ..note
    });
    kept.into_iter().map(together).chain(more).collect()
}

/// Describes the failure of a span, if it failed.
fn error(span: &Span) -> Option<String> {
    let Status::Error(message) = &span.status else {
        return None;
    };
    let exception = span.events.iter().rev().find(|event| event.name == "exception");
    let recorded = |name: &str| exception.and_then(|event| event.attributes.text(name));
    let message = Some(message.as_str()).filter(|message| !message.is_empty());
    let message = message.or_else(|| recorded("exception.message"));
    let class = span.attributes.text(attribute::ERROR_TYPE).or_else(|| recorded("exception.type"));
    Some(match (class, message) {
        (Some(class), Some(message)) if !message.contains(class) => format!("{class}: {message}"),
        (_, Some(text)) | (Some(text), None) => text.to_owned(),
        (None, None) => "failed without a description".to_owned(),
    })
}
