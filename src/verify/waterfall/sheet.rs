//! The drawing, line by line.

use std::time::Duration;

use super::line::{Glyphs, Line, Style};
use super::plan::{Plan, long_attempt, prefix, short_attempt};
use super::{Waterfall, bar, head};
use crate::verify::latency::HumanDuration;
use crate::verify::layout::{Bar, BarKind, Body, Layout, Mark, Note, Row, Section, Wait, Work};
use crate::verify::text::{columns, counted};

/// Everything needed to write the lines.
#[derive(Debug)]
pub(super) struct Sheet<'w, 'a> {
    waterfall: &'w Waterfall<'a>,
    layout: Layout<'a>,
    glyphs: &'static Glyphs,
    plan: Plan,
}

impl<'w, 'a> Sheet<'w, 'a> {
    pub(super) fn of(waterfall: &'w Waterfall<'a>) -> Self {
        let glyphs = if waterfall.ascii { &Glyphs::ASCII } else { &Glyphs::UNICODE };
        let layout = Layout::of(&[waterfall.trace], &waterfall.view);
        let plan = Plan::new(layout.rows(), waterfall.width, glyphs);
        Self { waterfall, layout, glyphs, plan }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for section in &self.layout.sections {
            lines.push(head::title(section, self.glyphs, self.line()));
            lines.push(head::summary(section, self.glyphs, self.line()));
            lines.extend([self.line(), self.ruler()]);
            self.rows(section, &mut lines);
            if section.left_out > 0 {
                let mut line = self.line();
                line.push(Style::Faint, &format!("{} not shown", counted(section.left_out, "more span")));
                lines.push(line);
            }
            let findings = section.findings.unwrap_or_default();
            head::findings(findings, self.waterfall.width, self.glyphs, || self.line(), &mut lines);
        }
        lines.into_iter().map(|line| line.finish(self.waterfall.colour)).collect()
    }

    fn rows(&self, section: &Section<'_>, lines: &mut Vec<Line>) {
        let mut above = None;
        for row in &section.rows {
            lines.push(match &row.body {
                Body::Span(work) => {
                    // Consecutive rows of one service name it only once.
                    let repeated = above.replace(&*work.span.service) == Some(&*work.span.service);
                    self.span(row, work, repeated)
                }
                Body::Wait(wait) => {
                    above = None;
                    self.wait(row, wait)
                }
                Body::Note(note) => self.note(row, note),
            });
        }
    }

    fn line(&self) -> Line {
        Line::new(self.waterfall.width, self.glyphs)
    }

    /// Writes the names of the columns and the times on the axis.
    fn ruler(&self) -> Line {
        let mut line = self.line();
        line.push(Style::Faint, "service");
        line.pad_to(self.plan.name_at());
        line.push(Style::Faint, "span");
        line.pad_to(self.plan.time_end() - columns("time"));
        line.push(Style::Faint, "time");
        line.pad_to(self.plan.bars_at());
        line.push(Style::Faint, &bar::ruler(&self.layout.axis, self.plan.bars, self.glyphs));
        line
    }

    fn span(&self, row: &Row<'_>, work: &Work<'_>, repeated: bool) -> Line {
        let span = work.span;
        let service = Style::Service(self.layout.rank(&span.service));
        let mut line = self.line();
        if !repeated {
            let name = self.glyphs.printable(&span.service);
            line.push(service, &self.glyphs.fit(&name, self.plan.service));
        }
        self.tree(&mut line, row, Style::Faint);
        self.name(&mut line, work);
        if span.start == 0 {
            self.time(&mut line, Style::Bad, "?");
            return line;
        }
        match work.bar.kind {
            BarKind::Open => self.time(&mut line, Style::Bad, "open"),
            _ if span.end < span.start => {
                let length = HumanDuration(Duration::from_nanos(span.start - span.end));
                self.time(&mut line, Style::Bad, &format!("-{length}"));
            }
            _ => self.time(&mut line, Style::Plain, &work.time()),
        }
        self.bar(&mut line, if span.is_error() { Style::Bad } else { service }, &work.bar);
        line
    }

    fn wait(&self, row: &Row<'_>, wait: &Wait<'_>) -> Line {
        let mut line = self.line();
        self.tree(&mut line, row, Style::Wait);
        self.cell(&mut line, Style::Wait, &wait.label(), "");
        self.time(&mut line, Style::Wait, &wait.time());
        if !wait.duration.is_zero() {
            self.bar(&mut line, Style::Wait, &wait.bar);
        }
        line
    }

    /// Writes a note, which may continue across the bars because it is a sentence.
    fn note(&self, row: &Row<'_>, note: &Note<'_>) -> Line {
        let mut line = self.line();
        self.tree(&mut line, row, Style::Faint);
        let mark = match note.mark {
            Mark::Bad => self.glyphs.bad,
            Mark::To | Mark::Nowhere => self.glyphs.to,
            Mark::From => self.glyphs.from,
        };
        let mut text = format!("{mark} {}", note.text);
        if let Some(trace) = note.trace {
            // The whole id if it fits, otherwise enough of it to tell traces apart.
            let whole = format!("{text}, trace {trace}");
            text = if columns(&self.glyphs.printable(&whole)) <= line.left() {
                whole
            } else {
                let short = format!(", trace {}{}", &trace.to_string()[..8], self.glyphs.ellipsis);
                let room = line.left().saturating_sub(columns(&short));
                self.glyphs.fit(&self.glyphs.printable(&text), room) + &short
            };
        }
        let bad = matches!(note.mark, Mark::Bad | Mark::Nowhere);
        line.push(if bad { Style::Bad } else { Style::Faint }, &text);
        line
    }

    fn tree(&self, line: &mut Line, row: &Row<'_>, style: Style) {
        line.pad_to(self.plan.name_at());
        let (stems, joint) = prefix(row, self.plan.levels(), self.glyphs);
        line.push(Style::Faint, &stems);
        line.push(style, joint);
    }

    fn name(&self, line: &mut Line, work: &Work<'_>) {
        let room = self.plan.name_end().saturating_sub(line.used());
        let attempt = work.attempt.map_or(String::new(), |attempt| {
            let name = self.glyphs.printable(&work.span.name);
            let long = long_attempt(attempt);
            if columns(&name) + columns(&long) <= room { long } else { short_attempt(attempt) }
        });
        let style = match work.span.is_error() {
            true => Style::Bad,
            false if work.is_strong() => Style::Strong,
            false => Style::Plain,
        };
        self.cell(line, style, &work.span.name, &attempt);
    }

    /// Writes text in the column of names, with a suffix that is not cut.
    fn cell(&self, line: &mut Line, style: Style, text: &str, suffix: &str) {
        let text = self.glyphs.printable(text);
        let room = self.plan.name_end().saturating_sub(line.used());
        line.push(style, &self.glyphs.fit(&text, room.saturating_sub(columns(suffix))));
        line.push(Style::Faint, suffix);
    }

    /// Writes a time, flush right, and the space up to the bars.
    fn time(&self, line: &mut Line, style: Style, text: &str) {
        line.pad_to(self.plan.time_end() - columns(text));
        line.push(style, text);
        line.pad_to(self.plan.bars_at());
    }

    fn bar(&self, line: &mut Line, style: Style, bar: &Bar) {
        line.push(style, &bar::draw(bar, &self.layout.axis, self.plan.bars, self.glyphs));
    }
}
