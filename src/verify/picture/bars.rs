//! The rows: names in the tree, bars on the axis, times beside them.

use super::canvas::{Canvas, Font, number};
use super::scene::{GAP, MARGIN, Scene, WIDTH, name_at};
use crate::verify::layout::{Bar, BarKind, Body, Note, Row, Wait, Work};
use crate::verify::markup::escaped;

/// Minimum width of a bar, in pixels.
const NARROWEST: f64 = 2.0;

pub(super) fn row(scene: &Scene<'_, '_>, canvas: &mut Canvas, row: &Row<'_>, y: f64) {
    match &row.body {
        Body::Span(work) => draw_span(scene, canvas, work, name_at(row), y),
        Body::Wait(wait) => draw_wait(scene, canvas, wait, name_at(row), y),
        Body::Note(note) => draw_note(canvas, note, name_at(row), y),
    }
}

fn draw_span(scene: &Scene<'_, '_>, canvas: &mut Canvas, work: &Work<'_>, x: f64, y: f64) {
    let span = work.span;
    canvas.raw(&opening(work));
    let beside = work.beside();
    let room = scene.names_end - x;
    let name = Font::Normal.fit(&span.name, (room - Font::Small.width(&beside)).max(60.0));
    let beside = Font::Small.fit(&beside, room - Font::Normal.width(&name) - GAP);
    let bold = if work.is_strong() { "strong" } else { "plain" };
    let failed = if span.is_error() { " bad" } else { "" };
    canvas.raw(&format!(
        "<text x=\"{}\" y=\"{}\"><tspan class=\"{bold}{failed}\">{}</tspan><tspan class=\"service\" dx=\"{GAP}\">{}</tspan></text>",
        number(x),
        number(y),
        escaped(&name),
        escaped(&beside)
    ));
    draw_bar(scene, canvas, work, y);
    canvas.raw("</g>");
}

/// Draws the bar of a span, with its time beside it.
fn draw_bar(scene: &Scene<'_, '_>, canvas: &mut Canvas, work: &Work<'_>, y: f64) {
    let (from, width) = stretch(scene, &work.bar);
    if work.bar.kind == BarKind::Open {
        canvas.bar((from, y - 6.0), (width, 12.0), "open");
        draw_time(scene, canvas, (from, from + width), y, "time bad", &work.time());
        return;
    }
    canvas.bar((from, y - 7.0), (width, 14.0), &format!("c{}", scene.colour(&work.span.service)));
    let mut end = from + width;
    if work.span.is_error() {
        let [x, top, right, bottom] = [end + 5.0, y - 4.0, end + 13.0, y + 4.0].map(number);
        canvas.path("cross", &format!("M{x} {top}L{right} {bottom}M{right} {top}L{x} {bottom}"), "");
        end += 13.0;
    }
    draw_time(scene, canvas, (from, end), y, "time", &work.time());
}

fn stretch(scene: &Scene<'_, '_>, bar: &Bar) -> (f64, f64) {
    scene.axis.stretch(bar.from, bar.to, NARROWEST)
}

/// Draws the wait of a message: hatched in the queue, dashed before the next delivery.
fn draw_wait(scene: &Scene<'_, '_>, canvas: &mut Canvas, wait: &Wait<'_>, x: f64, y: f64) {
    canvas.text((x, y), "queued", "start", &wait.label(), scene.names_end - x, Font::Small);
    let (from, width) = stretch(scene, &wait.bar);
    let class = if wait.bar.kind == BarKind::Retry { "again" } else { "wait" };
    canvas.bar((from, y - 5.0), (width, 10.0), class);
    let earlier = if wait.bar.from < scene.axis.start() { "‹ " } else { "" };
    draw_time(scene, canvas, (from, from + width), y, "queued", &format!("{earlier}{}", wait.time()));
}

/// Draws a time beside a bar: after it if there is room, otherwise before it or within it.
fn draw_time(scene: &Scene<'_, '_>, canvas: &mut Canvas, (from, to): (f64, f64), y: f64, class: &str, time: &str) {
    let width = Font::Small.width(time);
    let (x, anchor) = if to + 7.0 + width <= WIDTH - 6.0 {
        (to + 7.0, "start")
    } else if from - 7.0 - width >= scene.names_end {
        (from - 7.0, "end")
    } else {
        (to - 4.0, "end")
    };
    canvas.text((x, y), class, anchor, time, width + 8.0, Font::Small);
}

/// Returns the opening tag of a span, with attributes for programs and a tooltip.
fn opening(work: &Work<'_>) -> String {
    let span = work.span;
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
        escaped(&in_words(work))
    )
}

fn draw_note(canvas: &mut Canvas, note: &Note<'_>, x: f64, y: f64) {
    let (mark, text) = note.marked();
    canvas.text((x, y), note.class(), "start", &format!("{mark} {text}"), WIDTH - MARGIN - x, Font::Small);
}

/// Describes a span in a few words.
pub(super) fn in_words(work: &Work<'_>) -> String {
    let span = work.span;
    let attempt = work.attempt.map_or(String::new(), |attempt| format!(", attempt {attempt}"));
    let failed = if span.is_error() { ", failed" } else { "" };
    format!("{} ({}){attempt}, {}{failed}", span.name, span.service, work.time())
}
