//! The rows: names in the tree, bars on the axis, times beside them.

use std::time::Duration;

use super::canvas::{Canvas, Font, number};
use super::layout::{GAP, Layout, MARGIN, WIDTH, beside, name_at};
use crate::verify::latency::HumanDuration;
use crate::verify::markup::escaped;
use crate::verify::span::Span;
use crate::verify::waterfall::axis::Bar;
use crate::verify::waterfall::notes::{Mark, Note};
use crate::verify::waterfall::rows::{Body, Row};
use crate::verify::waterfall::waits::Wait;

pub(super) fn row(layout: &Layout<'_>, canvas: &mut Canvas, row: &Row<'_>, y: f64) {
    match &row.body {
        Body::Span(span, attempt) => draw_span(layout, canvas, span, *attempt, name_at(row), y),
        Body::Wait(wait) => draw_wait(layout, canvas, wait, name_at(row), y),
        Body::Note(note) => draw_note(canvas, note, name_at(row), y),
    }
}

fn draw_span(layout: &Layout<'_>, canvas: &mut Canvas, span: &Span, attempt: Option<u32>, x: f64, y: f64) {
    canvas.raw(&opening(span, attempt));
    let beside = beside(span, attempt);
    let room = layout.names_end - x;
    let name = Font::Normal.fit(&span.name, (room - Font::Small.width(&beside)).max(60.0));
    let beside = Font::Small.fit(&beside, room - Font::Normal.width(&name) - GAP);
    let bold = if span.is_producing() || span.is_processing() { "strong" } else { "plain" };
    let failed = if span.is_error() { " bad" } else { "" };
    canvas.raw(&format!(
        "<text x=\"{}\" y=\"{}\"><tspan class=\"{bold}{failed}\">{}</tspan><tspan class=\"service\" dx=\"{GAP}\">{}</tspan></text>",
        number(x),
        number(y),
        escaped(&name),
        escaped(&beside)
    ));
    draw_bar(layout, canvas, span, y);
    canvas.raw("</g>");
}

/// The bar of a span, with its time beside it.
fn draw_bar(layout: &Layout<'_>, canvas: &mut Canvas, span: &Span, y: f64) {
    let axis = layout.axis;
    let colour = format!("c{}", layout.colour(&span.service));
    if span.end == 0 {
        let (from, width) = axis.stretch(span.start, u64::MAX);
        canvas.bar((from, y - 6.0), (width, 12.0), "open");
        draw_time(layout, canvas, (from, from + width), y, "time bad", "never ended");
        return;
    }
    let (from, width) = axis.stretch(span.start, span.end);
    canvas.bar((from, y - 7.0), (width, 14.0), &colour);
    let mut end = from + width;
    if span.is_error() {
        let [x, top, right, bottom] = [end + 5.0, y - 4.0, end + 13.0, y + 4.0].map(number);
        canvas.path("cross", &format!("M{x} {top}L{right} {bottom}M{right} {top}L{x} {bottom}"), "");
        end += 13.0;
    }
    let time = HumanDuration(Duration::from_nanos(span.duration())).to_string();
    draw_time(layout, canvas, (from, end), y, "time", &time);
}

/// A message waits: hatched in the queue, dashed for the next delivery.
fn draw_wait(layout: &Layout<'_>, canvas: &mut Canvas, wait: &Wait<'_>, x: f64, y: f64) {
    let axis = layout.axis;
    canvas.text((x, y), "queued", "start", &wait.label(), layout.names_end - x, Font::Small);
    let (from, width) = axis.stretch(wait.from, wait.to);
    let class = if wait.kind == Bar::Retry { "again" } else { "wait" };
    canvas.bar((from, y - 5.0), (width, 10.0), class);
    let mark = if wait.estimated { "~" } else { "" };
    let earlier = if axis.is_before(wait.from) { "‹ " } else { "" };
    let time = format!("{earlier}{mark}{}", HumanDuration(wait.duration));
    draw_time(layout, canvas, (from, from + width), y, "queued", &time);
}

/// A time beside a bar: behind it where there is room, else before it.
fn draw_time(layout: &Layout<'_>, canvas: &mut Canvas, (from, to): (f64, f64), y: f64, class: &str, time: &str) {
    let width = Font::Small.width(time);
    let (x, anchor) = if to + 7.0 + width <= WIDTH - 6.0 {
        (to + 7.0, "start")
    } else if from - 7.0 - width >= layout.names_end {
        (from - 7.0, "end")
    } else {
        (to - 4.0, "end")
    };
    canvas.text((x, y), class, anchor, time, width + 8.0, Font::Small);
}

/// What a span is, for programs and for a pointer that rests on it.
fn opening(span: &Span, attempt: Option<u32>) -> String {
    let links: Vec<String> =
        span.links.iter().map(|link| format!("{}-{}", link.target.trace_id, link.target.span_id)).collect();
    let parent = span.parent.map_or(String::new(), |parent| parent.to_string());
    format!(
        "<g data-trace=\"{}\" data-id=\"{}\" data-parent=\"{parent}\" data-links=\"{}\" data-span=\"{}\" \
         data-service=\"{}\"><title>{}</title>",
        span.trace_id,
        span.span_id,
        links.join(" "),
        escaped(&span.name),
        escaped(&span.service),
        escaped(&in_words(span, attempt))
    )
}

fn draw_note(canvas: &mut Canvas, note: &Note, x: f64, y: f64) {
    let (mark, class) = match note.mark {
        Mark::Bad => ("✗", "note bad"),
        Mark::Nowhere => ("↳", "note bad"),
        Mark::To => ("↳", "note"),
        Mark::From => ("↰", "note"),
    };
    let trace = note.trace.map_or(String::new(), |trace| format!(", trace {trace}"));
    canvas.text((x, y), class, "start", &format!("{mark} {}{trace}", note.text), WIDTH - MARGIN - x, Font::Small);
}

/// A span in a few words.
pub(super) fn in_words(span: &Span, attempt: Option<u32>) -> String {
    let attempt = attempt.map_or(String::new(), |attempt| format!(", attempt {attempt}"));
    let time = if span.end == 0 {
        "never ended".to_owned()
    } else {
        HumanDuration(Duration::from_nanos(span.duration())).to_string()
    };
    let failed = if span.is_error() { ", failed" } else { "" };
    format!("{} ({}){attempt}, {time}{failed}", span.name, span.service)
}
