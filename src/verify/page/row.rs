//! The rows: a name in the tree, and a bar on the axis with its time beside it.

use std::fmt::Write as _;
use std::time::Duration;

use super::section::Section;
use crate::verify::latency::HumanDuration;
use crate::verify::markup::escaped;
use crate::verify::span::Span;
use crate::verify::waterfall::axis::Bar;
use crate::verify::waterfall::notes::{Mark, Note};
use crate::verify::waterfall::rows::{Body, Row};
use crate::verify::waterfall::waits::Wait;

/// Deeper levels are not indented further.
const DEEPEST: usize = 24;

/// `number` is the place of the row's details; `above` is the span that the row is about.
pub(super) fn write(section: &Section<'_>, html: &mut String, row: &Row<'_>, number: usize, above: Option<&Span>) {
    let depth = row.place.depth + usize::from(matches!(row.body, Body::Note(_)));
    let open = Opening { number, depth };
    match &row.body {
        Body::Span(span, attempt) => write_span(section, html, &open, span, *attempt),
        Body::Wait(wait) => write_wait(section, html, &open, wait),
        Body::Note(note) => write_note(section, html, &open, note, above),
    }
}

/// What every row begins with.
struct Opening {
    number: usize,
    depth: usize,
}

impl Opening {
    fn write(&self, html: &mut String, class: &str, more: &str) {
        let Self { number, depth } = self;
        let (level, indent) = (depth + 1, (*depth).min(DEEPEST));
        let _ = write!(
            html,
            "<div class=\"row {class}\" role=\"row\" aria-level=\"{level}\" data-i=\"{number}\" \
             style=\"--d:{indent}\"{more}>"
        );
    }
}

fn write_span(section: &Section<'_>, html: &mut String, open: &Opening, span: &Span, attempt: Option<u32>) {
    let mut class = String::from("span");
    if span.is_producing() || span.is_processing() {
        class.push_str(" strong");
    }
    if span.is_error() {
        class.push_str(" bad");
    }
    if span.is_error() || !section.findings(span).is_empty() {
        class.push_str(" problem");
    }
    open.write(html, &class, &format!(" id=\"s-{}-{}\"", span.trace_id, span.span_id));
    let attempt = attempt.map_or(String::new(), |attempt| format!("attempt {attempt} · "));
    let _ = write!(
        html,
        "<div class=\"name\" role=\"gridcell\"><b>{}</b> <small>{attempt}{}</small></div><div class=\"track\" \
         role=\"gridcell\">",
        escaped(&span.name),
        escaped(&span.service)
    );
    if span.end == 0 {
        write_bar(section, html, "open", (span.start, u64::MAX), "never ended");
    } else {
        let time = HumanDuration(Duration::from_nanos(span.duration()));
        let cross = if span.is_error() { "✗ " } else { "" };
        let colour = format!("c{}", section.colour(&span.service));
        write_bar(section, html, &colour, (span.start, span.end.max(span.start)), &format!("{cross}{time}"));
    }
    html.push_str("</div></div>\n");
}

fn write_wait(section: &Section<'_>, html: &mut String, open: &Opening, wait: &Wait<'_>) {
    let class = if wait.kind == Bar::Retry { "again" } else { "wait" };
    open.write(html, class, "");
    let _ = write!(
        html,
        "<div class=\"name\" role=\"gridcell\">{}</div><div class=\"track\" role=\"gridcell\">",
        escaped(&wait.label())
    );
    let estimated = if wait.estimated { "~" } else { "" };
    let earlier = if wait.from < section.start() { "‹ " } else { "" };
    let time = format!("{earlier}{estimated}{}", HumanDuration(wait.duration));
    write_bar(section, html, class, (wait.from, wait.to), &time);
    html.push_str("</div></div>\n");
}

fn write_bar(section: &Section<'_>, html: &mut String, class: &str, (from, to): (u64, u64), time: &str) {
    let (from, to) = (section.at(from), section.at(to));
    let _ = write!(
        html,
        "<i class=\"bar {class}\" style=\"--a:{from:.6};--w:{:.6}\"></i><span class=\"time\" \
         style=\"--a:{to:.6}\">{time}</span>",
        to - from
    );
}

fn write_note(section: &Section<'_>, html: &mut String, open: &Opening, note: &Note, above: Option<&Span>) {
    let (mark, class) = match note.mark {
        Mark::Bad => ("✗", "note bad"),
        Mark::Nowhere => ("↳", "note bad"),
        Mark::To => ("↳", "note"),
        Mark::From => ("↰", "note"),
    };
    open.write(html, class, "");
    let trace = note.trace.map_or(String::new(), |trace| format!(", trace {trace}"));
    let text = escaped(&format!("{}{trace}", note.text));
    html.push_str("<div class=\"name\" role=\"gridcell\">");
    match above.and_then(|span| section.target(span, note.mark, note.trace)) {
        Some(to) => {
            let _ = write!(html, "{mark} <a href=\"#s-{}-{}\">{text}</a>", to.trace_id, to.span_id);
        }
        None => {
            let _ = write!(html, "{mark} {text}");
        }
    }
    html.push_str("</div></div>\n");
}
