//! The rows: a name in the tree, and a bar on the axis with its time beside it.

use std::fmt::Write as _;

use super::section::Section;
use crate::verify::layout::{Bar, BarKind, Body, Note, Row, Wait, Work};
use crate::verify::markup::escaped;

/// Maximum depth of indentation.
const DEEPEST: usize = 24;

/// Writes a row. `number` is the index of its details.
pub(super) fn write(section: &Section<'_, '_>, html: &mut String, row: &Row<'_>, number: usize) {
    let depth = row.depth + usize::from(matches!(row.body, Body::Note(_)));
    let open = Opening { number, depth };
    match &row.body {
        Body::Span(work) => write_span(section, html, &open, work),
        Body::Wait(wait) => write_wait(section, html, &open, wait),
        Body::Note(note) => write_note(html, &open, note),
    }
}

/// The beginning of every row.
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

fn write_span(section: &Section<'_, '_>, html: &mut String, open: &Opening, work: &Work<'_>) {
    let span = work.span;
    let mut class = String::from("span");
    if work.is_strong() {
        class.push_str(" strong");
    }
    if span.is_error() {
        class.push_str(" bad");
    }
    if span.is_error() || !section.laid.findings(span).is_empty() {
        class.push_str(" problem");
    }
    open.write(html, &class, &format!(" id=\"s-{}-{}\"", span.trace_id, span.span_id));
    let _ = write!(
        html,
        "<div class=\"name\" role=\"gridcell\"><b>{}</b> <small>{}</small></div><div class=\"track\" \
         role=\"gridcell\">",
        escaped(&span.name),
        escaped(&work.beside())
    );
    let (class, cross) = match work.bar.kind {
        BarKind::Open => ("open".to_owned(), ""),
        _ => (format!("c{}", section.layout.rank(&span.service) % 6), if span.is_error() { "✗ " } else { "" }),
    };
    write_bar(section, html, &class, &work.bar, &format!("{cross}{}", work.time()));
    html.push_str("</div></div>\n");
}

fn write_wait(section: &Section<'_, '_>, html: &mut String, open: &Opening, wait: &Wait<'_>) {
    let class = if wait.bar.kind == BarKind::Retry { "again" } else { "wait" };
    open.write(html, class, "");
    let _ = write!(
        html,
        "<div class=\"name\" role=\"gridcell\">{}</div><div class=\"track\" role=\"gridcell\">",
        escaped(&wait.label())
    );
    let earlier = if wait.bar.from < section.axis.start() { "‹ " } else { "" };
    write_bar(section, html, class, &wait.bar, &format!("{earlier}{}", wait.time()));
    html.push_str("</div></div>\n");
}

fn write_bar(section: &Section<'_, '_>, html: &mut String, class: &str, bar: &Bar, time: &str) {
    let (from, to) = (section.axis.x(bar.from), section.axis.x(bar.to));
    let _ = write!(
        html,
        "<i class=\"bar {class}\" style=\"--a:{from:.6};--w:{:.6}\"></i><span class=\"time\" \
         style=\"--a:{to:.6}\">{time}</span>",
        to - from
    );
}

fn write_note(html: &mut String, open: &Opening, note: &Note<'_>) {
    open.write(html, note.class(), "");
    let (mark, text) = note.marked();
    let text = escaped(&text);
    html.push_str("<div class=\"name\" role=\"gridcell\">");
    let _ = match note.target {
        Some(to) => write!(html, "{mark} <a href=\"#s-{}-{}\">{text}</a>", to.trace_id, to.span_id),
        None => write!(html, "{mark} {text}"),
    };
    html.push_str("</div></div>\n");
}
