//! The details of the selected row, as JSON that the page's script lays out.

use serde_json::{Map, Value, json};

use super::section::Section;
use crate::verify::attributes::Attributes;
use crate::verify::id::SpanRef;
use crate::verify::latency::HumanDuration;
use crate::verify::layout::{BarKind, Body, Row, Wait, Work};
use crate::verify::span::Status;
use crate::verify::text::printable;

/// Maximum number of characters kept of a text.
const LONGEST: usize = 4_096;
/// Maximum number of findings and of links from elsewhere that one row shows. Rows that claim to be
/// the same span share theirs, so the page would grow with the product of both.
const MOST: usize = 100;

impl Section<'_, '_> {
    /// Returns the details of a row; `null` for a note, because the span above has them.
    pub(super) fn details(&self, row: &Row<'_>) -> Value {
        match &row.body {
            Body::Span(work) => self.span_details(work),
            Body::Wait(wait) => self.wait_details(wait),
            Body::Note(_) => Value::Null,
        }
    }

    fn span_details(&self, work: &Work<'_>) -> Value {
        let span = work.span;
        let status = match &span.status {
            Status::Error(message) if message.is_empty() => Some("failed".to_owned()),
            Status::Error(message) => Some(format!("failed: {}", shown(message))),
            _ => None,
        };
        let events = span.events.iter().map(|event| {
            let at = self.since_start(event.time).to_string();
            json!({ "at": at, "name": shown(&event.name), "attributes": attributes(&event.attributes) })
        });
        let links = span.links.iter().map(|link| {
            let mut to = self.reference(link.target);
            to["attributes"] = attributes(&link.attributes);
            to
        });
        let (findings, more_findings) = first(self.laid.findings(span));
        let (linked_from, more_linked_from) = first(self.laid.incoming(span));
        json!({
            "name": shown(&span.name),
            "service": shown(&span.service),
            "kind": span.kind.as_str(),
            "trace": span.trace_id.to_string(),
            "span": span.span_id.to_string(),
            "parent": span.parent_reference().map(|parent| self.reference(parent)),
            "attempt": work.attempt,
            // As text: numbers of this size lose digits in a browser.
            "start": span.start.to_string(),
            "offset": self.since_start(span.start).to_string(),
            "duration": work.time(),
            "status": status,
            "findings": findings.iter().map(|finding| shown(&finding.message)).collect::<Vec<_>>(),
            "more_findings": more_findings,
            "attributes": attributes(&span.attributes),
            "events": events.collect::<Vec<_>>(),
            "links": links.collect::<Vec<_>>(),
            "dropped_links": span.dropped_links,
            "linked_from": linked_from.iter().map(|from| self.reference(from.reference())).collect::<Vec<_>>(),
            "more_linked_from": more_linked_from,
        })
    }

    fn wait_details(&self, wait: &Wait<'_>) -> Value {
        json!({
            "wait": if wait.bar.kind == BarKind::Retry { "until it was delivered again" } else { "in the queue" },
            "name": shown(&wait.label()),
            "topic": shown(wait.topic),
            "messages": wait.messages,
            "duration": HumanDuration(wait.duration).to_string(),
            "measured": !wait.estimated,
            "start": wait.bar.from.to_string(),
            "offset": self.since_start(wait.bar.from).to_string(),
        })
    }

    /// Returns the ids of a span, and its name if the span is known.
    fn reference(&self, target: SpanRef) -> Value {
        let name = self.laid.resolve(target).map(|span| format!("{} ({})", shown(&span.name), shown(&span.service)));
        json!({ "trace": target.trace_id.to_string(), "span": target.span_id.to_string(), "name": name })
    }
}

/// Returns the first of some details, and the number of the others.
fn first<T>(all: &[T]) -> (&[T], usize) {
    let (first, others) = all.split_at(all.len().min(MOST));
    (first, others.len())
}

fn attributes(attributes: &Attributes) -> Value {
    let all = attributes.iter().map(|(name, value)| (shown(name), Value::from(shown(&value.to_string()))));
    Value::Object(all.collect::<Map<_, _>>())
}

/// Returns text for display: line breaks are kept, and characters that could change how the rest is
/// read are removed.
fn shown(text: &str) -> String {
    let kept: String = text.chars().take(LONGEST).collect();
    let lines: Vec<String> = kept.split('\n').map(|line| printable(line, false, '\u{fffd}')).collect();
    match text.chars().count().checked_sub(LONGEST) {
        Some(more @ 1..) => format!("{} … and {more} more characters", lines.join("\n")),
        _ => lines.join("\n"),
    }
}
