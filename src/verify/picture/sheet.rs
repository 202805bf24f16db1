//! The picture, line by line.

use std::time::Duration;

use super::Picture;
use super::arrows;
use super::bars::{self, in_words};
use super::canvas::{Canvas, Font, number};
use super::scene::{Content, INDENT, MARGIN, Scene, WIDTH, name_at};
use crate::verify::latency::HumanDuration;
use crate::verify::layout::{Body, Layout, Row};
use crate::verify::markup::escaped;
use crate::verify::trace::Trace;

/// Everything needed to draw.
#[derive(Debug)]
pub(super) struct Sheet<'p, 'a> {
    picture: &'p Picture<'a>,
    scene: Scene<'p, 'a>,
}

impl<'p, 'a> Sheet<'p, 'a> {
    pub(super) fn of(picture: &'p Picture<'a>, layout: &'p Layout<'a>) -> Self {
        Self { picture, scene: Scene::of(layout) }
    }

    pub(super) fn draw(&self) -> String {
        let mut canvas = Canvas::default();
        let (width, height) = (number(WIDTH), number(self.scene.height));
        canvas.raw(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"traces\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" aria-labelledby=\"title desc\">"
        ));
        canvas.raw(&format!("<title id=\"title\">{}</title>", escaped(self.title())));
        canvas.raw(&format!("<desc id=\"desc\">{}</desc>", escaped(&self.description())));
        canvas.raw(&format!("<style>{}</style>", include_str!("style.css").trim_end()));
        canvas.raw(
            "<defs><pattern id=\"queue\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
             patternTransform=\"rotate(45)\"><path class=\"hatch\" d=\"M0 0V6\"/></pattern><marker id=\"to\" \
             viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path \
             class=\"tip\" d=\"M0 0L8 4L0 8z\"/></marker></defs>",
        );
        canvas.raw(&format!("<rect class=\"page\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>"));
        self.head(&mut canvas);
        self.ruler(&mut canvas);
        self.tree(&mut canvas);
        // Drawn before the rows, so that no text is struck through.
        arrows::draw(&self.scene, &mut canvas);
        for line in &self.scene.lines {
            match &line.content {
                Content::Row(row) => bars::row(&self.scene, &mut canvas, row, line.y),
                other => self.words(&mut canvas, other, line.y),
            }
        }
        canvas.raw("</svg>");
        canvas.finish()
    }

    fn title(&self) -> &'a str {
        let first = || self.picture.traces.first().and_then(|trace| trace.spans().first());
        self.picture.title.or_else(|| first().map(|span| &*span.name)).unwrap_or_default()
    }

    /// Draws the title, the result of the check, and the services with their colours.
    fn head(&self, canvas: &mut Canvas) {
        canvas.text((MARGIN, 26.0), "title", "start", self.title(), (WIDTH - 200.0) * 0.8, Font::Normal);
        if let Some(report) = self.picture.view.report {
            let broken = self.picture.traces.iter().any(|trace| !report.of(trace.id()).is_empty());
            let (class, word) = if broken { ("bad strong", "✗ broken") } else { ("good strong", "✓ whole") };
            canvas.text((WIDTH - MARGIN, 26.0), class, "end", word, 100.0, Font::Normal);
        }
        let mut x = MARGIN;
        for service in &self.scene.layout.services {
            let name = Font::Small.fit(service, 200.0);
            if x + Font::Small.width(&name) > WIDTH - 220.0 {
                break;
            }
            canvas.bar((x, 47.0), (12.0, 12.0), &format!("c{}", self.scene.colour(service)));
            canvas.text((x + 18.0, 53.0), "small", "start", &name, 200.0, Font::Small);
            x += 18.0 + Font::Small.width(&name) + 16.0;
        }
        canvas.text((WIDTH - MARGIN, 53.0), "small faint", "end", &self.summary(), 220.0, Font::Small);
    }

    /// Draws the times, and the vertical lines below them.
    fn ruler(&self, canvas: &mut Canvas) {
        let (top, bottom) = (number(86.0), number(self.scene.bars_end));
        for (time, x) in self.scene.axis.ticks() {
            let label = plain(&HumanDuration(Duration::from_nanos(time)).to_string());
            let anchor = if x + Font::Small.width(&label) / 2.0 > WIDTH - MARGIN { "end" } else { "middle" };
            canvas.text((x, 77.0), "time faint", anchor, &label, 90.0, Font::Small);
            canvas.path("rule", &format!("M{0} {top}V{bottom}", number(x)), "");
        }
    }

    /// Draws the lines from spans to their children.
    fn tree(&self, canvas: &mut Canvas) {
        let mut above: Vec<f64> = Vec::new();
        for line in &self.scene.lines {
            let Content::Row(row) = &line.content else { continue };
            let Body::Span(_) = row.body else { continue };
            above.truncate(row.depth);
            if let Some(parent) = above.last() {
                let (x, to) = (name_at(row) - INDENT + 5.0, name_at(row) - 4.0);
                let [x, from, y, to] = [x, parent + 10.0, line.y, to].map(number);
                canvas.path("tree", &format!("M{x} {from}V{y}H{to}"), "");
            }
            above.push(line.y);
        }
    }

    fn words(&self, canvas: &mut Canvas, content: &Content<'_, '_>, y: f64) {
        let room = WIDTH - 2.0 * MARGIN;
        match content {
            Content::Heading(trace) => {
                let name = format!("trace {}", trace.id());
                canvas.text((MARGIN, y + 3.0), "heading small faint", "start", &name, room, Font::Small);
            }
            Content::More(spans) => {
                let text = format!("{spans} more spans not shown");
                canvas.text((MARGIN, y), "note", "start", &text, room, Font::Small);
            }
            Content::Finding(finding) => {
                canvas.text(
                    (MARGIN, y + 5.0),
                    "bad strong",
                    "start",
                    &format!("✗ {}", finding.kind),
                    room,
                    Font::Normal,
                );
            }
            Content::Sentence(text) => {
                canvas.text((MARGIN + INDENT, y), "small", "start", text, room, Font::Small);
            }
            Content::MoreFindings(more) => {
                canvas.text((MARGIN, y), "bad", "start", &format!("and {more} more"), room, Font::Normal);
            }
            Content::Row(_) => {}
        }
    }

    fn summary(&self) -> String {
        let spans: usize = self.picture.traces.iter().map(|trace| trace.spans().len()).sum();
        let traces = self.picture.traces.len();
        let traces = if traces > 1 { format!("{traces} traces · ") } else { String::new() };
        let start = self.picture.traces.iter().map(|trace| trace.start()).min().unwrap_or(0);
        let end = self.picture.traces.iter().map(|trace| trace.end()).max().unwrap_or(0);
        let length = HumanDuration(Duration::from_nanos(end.saturating_sub(start)));
        format!("{traces}{spans} {} · {length}", if spans == 1 { "span" } else { "spans" })
    }

    /// Describes the picture in words.
    fn description(&self) -> String {
        let head = |trace: &Trace| {
            let report = self.picture.view.report;
            let state =
                report.map_or("", |report| if report.of(trace.id()).is_empty() { ", whole" } else { ", broken" });
            format!("Trace of {} spans{state}: ", trace.spans().len())
        };
        let only = Some(&self.picture.traces).filter(|traces| traces.len() == 1);
        let mut sentences: Vec<String> = only.into_iter().flatten().map(|trace| head(trace)).collect();
        for line in &self.scene.lines {
            match &line.content {
                Content::Heading(trace) => sentences.push(head(trace)),
                Content::Row(Row { body: Body::Span(work), .. }) => sentences.push(format!("{}; ", in_words(work))),
                Content::Row(Row { body: Body::Wait(wait), .. }) => {
                    sentences.push(format!("{} {}; ", wait.label(), HumanDuration(wait.duration)));
                }
                _ => {}
            }
        }
        sentences.concat().trim_end_matches("; ").to_owned()
    }
}

/// Removes trailing zeros from the decimals of a duration.
fn plain(duration: &str) -> String {
    match duration.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => duration.to_owned(),
    }
}
