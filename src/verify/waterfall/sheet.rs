//! The picture, line by line.

use std::collections::HashMap;
use std::time::Duration;

use super::Waterfall;
use super::axis::{Axis, Bar};
use super::head;
use super::line::{Glyphs, Line, Style};
use super::notes::{Mark, Note};
use super::plan::{Plan, long_attempt, short_attempt};
use super::rows::{self, Body, Place, Row, name_style};
use super::waits::Wait;
use crate::verify::span::Span;
use crate::verify::text::{columns, counted};

/// Everything that is needed to write the lines.
#[derive(Debug)]
pub(super) struct Sheet<'w, 'a> {
    waterfall: &'w Waterfall<'a>,
    rows: Vec<Row<'a>>,
    left_out: usize,
    glyphs: &'static Glyphs,
    plan: Plan,
    axis: Axis,
    /// Services by the order in which they appear.
    services: HashMap<&'a str, usize>,
}

impl<'w, 'a> Sheet<'w, 'a> {
    pub(super) fn of(waterfall: &'w Waterfall<'a>) -> Self {
        let glyphs = if waterfall.ascii { &Glyphs::ASCII } else { &Glyphs::UNICODE };
        let (rows, left_out) = rows::of(waterfall);
        let plan = Plan::new(&rows, waterfall.width, glyphs);
        let (start, end) = period(waterfall, &rows);
        let axis = Axis::new(start, end, plan.bars);
        let services = waterfall.trace.services().into_iter().enumerate().map(|(rank, name)| (name, rank)).collect();
        Self { waterfall, rows, left_out, glyphs, plan, axis, services }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![head::title(self.waterfall, self.glyphs, self.line())];
        lines.push(head::summary(self.waterfall, &self.rows, self.glyphs, self.line()));
        lines.push(self.line());
        lines.push(self.ruler());
        let mut above = None;
        for row in &self.rows {
            lines.push(match &row.body {
                Body::Span(span, attempt) => {
                    // A service is named where it takes over.
                    let repeated = above.replace(&*span.service) == Some(&*span.service);
                    self.span(row.place, span, *attempt, repeated)
                }
                Body::Wait(wait) => {
                    above = None;
                    self.wait(row.place, wait)
                }
                Body::Note(note) => self.note(row.place, note),
            });
        }
        if self.left_out > 0 {
            let mut line = self.line();
            line.push(Style::Faint, &format!("{} not shown", counted(self.left_out, "more span")));
            lines.push(line);
        }
        head::findings(self.waterfall, self.glyphs, || self.line(), &mut lines);
        lines.into_iter().map(|line| line.finish(self.waterfall.colour)).collect()
    }

    fn line(&self) -> Line {
        Line::new(self.waterfall.width, self.glyphs)
    }

    /// The names of the columns and the times at the ends of the axis.
    fn ruler(&self) -> Line {
        let mut line = self.line();
        line.push(Style::Faint, "service");
        line.pad_to(self.plan.name_at());
        line.push(Style::Faint, "span");
        line.pad_to(self.plan.time_end() - columns("time"));
        line.push(Style::Faint, "time");
        line.pad_to(self.plan.bars_at());
        line.push(Style::Faint, &self.axis.ruler(self.glyphs));
        line
    }

    fn span(&self, place: Place, span: &Span, attempt: Option<u32>, repeated: bool) -> Line {
        let service = self.services.get(&*span.service).copied().unwrap_or(0);
        let mut line = self.line();
        if !repeated {
            let name = self.glyphs.printable(&span.service);
            line.push(Style::Service(service), &self.glyphs.fit(&name, self.plan.service));
        }
        self.tree(&mut line, place, Style::Faint);
        self.name(&mut line, span, attempt);
        let style = if span.is_error() { Style::Bad } else { Style::Service(service) };
        match (span.start, span.end) {
            (0, _) => self.time(&mut line, Style::Bad, "?"),
            (start, 0) => {
                self.time(&mut line, Style::Bad, "open");
                line.push(style, &self.axis.bar(Bar::Open, start, start, self.glyphs));
            }
            (start, end) => {
                let length = self.glyphs.duration(Duration::from_nanos(start.abs_diff(end)));
                let (time_style, length) =
                    if end < start { (Style::Bad, format!("-{length}")) } else { (Style::Plain, length) };
                self.time(&mut line, time_style, &length);
                let kind = if end > start { Bar::Span } else { Bar::Instant };
                line.push(style, &self.axis.bar(kind, start, end, self.glyphs));
            }
        }
        line
    }

    fn wait(&self, place: Place, wait: &Wait<'_>) -> Line {
        let mut line = self.line();
        self.tree(&mut line, place, Style::Wait);
        self.cell(&mut line, Style::Wait, &wait.label(), "");
        let mark = if wait.estimated { "~" } else { "" };
        self.time(&mut line, Style::Wait, &format!("{mark}{}", self.glyphs.duration(wait.duration)));
        if !wait.duration.is_zero() {
            line.push(Style::Wait, &self.axis.bar(wait.kind, wait.from, wait.to, self.glyphs));
        }
        line
    }

    /// Notes run on under the bars: they are sentences.
    fn note(&self, place: Place, note: &Note) -> Line {
        let mut line = self.line();
        self.tree(&mut line, place, Style::Faint);
        let mark = match note.mark {
            Mark::Bad => self.glyphs.bad,
            Mark::To | Mark::Nowhere => self.glyphs.to,
            Mark::From => self.glyphs.from,
        };
        let mut text = format!("{mark} {}", note.text);
        if let Some(trace) = note.trace {
            // The whole id where it fits, else as much as is enough to tell traces apart.
            let whole = format!("{text}, trace {trace}");
            text = if columns(&self.glyphs.printable(&whole)) <= line.left() {
                whole
            } else {
                let short = format!(", trace {}{}", &trace.to_string()[..8], self.glyphs.ellipsis);
                let room = line.left().saturating_sub(columns(&short));
                self.glyphs.fit(&self.glyphs.printable(&text), room) + &short
            };
        }
        line.push(note.mark.style(), &text);
        line
    }

    fn tree(&self, line: &mut Line, place: Place, style: Style) {
        line.pad_to(self.plan.name_at());
        let (stems, joint) = place.prefix(self.plan.levels(), self.glyphs);
        line.push(Style::Faint, &stems);
        line.push(style, joint);
    }

    fn name(&self, line: &mut Line, span: &Span, attempt: Option<u32>) {
        let room = self.plan.name_end().saturating_sub(line.used());
        let attempt = attempt.map_or(String::new(), |attempt| {
            let name = self.glyphs.printable(&span.name);
            let long = long_attempt(attempt);
            if columns(&name) + columns(&long) <= room { long } else { short_attempt(attempt) }
        });
        self.cell(line, name_style(span), &span.name, &attempt);
    }

    /// Text in the column of names, with a suffix that is not cut.
    fn cell(&self, line: &mut Line, style: Style, text: &str, suffix: &str) {
        let text = self.glyphs.printable(text);
        let room = self.plan.name_end().saturating_sub(line.used());
        line.push(style, &self.glyphs.fit(&text, room.saturating_sub(columns(suffix))));
        line.push(Style::Faint, suffix);
    }

    /// A time, flush right, and the space up to the bars.
    fn time(&self, line: &mut Line, style: Style, text: &str) {
        line.pad_to(self.plan.time_end() - columns(text));
        line.push(style, text);
        line.pad_to(self.plan.bars_at());
    }
}

/// What the axis covers: the spans, and the waits before them unless those would leave the spans
/// too small to see.
fn period(waterfall: &Waterfall<'_>, rows: &[Row<'_>]) -> (u64, u64) {
    let (start, end) = (waterfall.trace.start(), waterfall.trace.end());
    let most = 2 * u128::from(end.saturating_sub(start));
    let waits = rows.iter().filter_map(|row| match &row.body {
        Body::Wait(wait) => Some(wait.from),
        _ => None,
    });
    let near = waits.filter(|from| u128::from(start.saturating_sub(*from)) <= most);
    (near.min().map_or(start, |from| from.min(start)), end)
}
