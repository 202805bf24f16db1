//! The layout of the columns.

use super::line::Glyphs;
use crate::verify::layout::{Body, Row};
use crate::verify::text::columns;

/// Maximum number of columns of a duration, including the mark before it.
const TIME: usize = 8;

/// The widths of three columns: service, name in the tree, and bars. The time has a fixed width.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) service: usize,
    pub(super) name: usize,
    pub(super) bars: usize,
}

impl Plan {
    /// Creates a plan: the bars get about a quarter of the width, the texts as much of the rest as
    /// they need, and the bars what remains.
    pub(super) fn new<'a>(rows: impl Iterator<Item = &'a Row<'a>>, width: usize, glyphs: &Glyphs) -> Self {
        // Two spaces after the service, one before the time, two after it.
        let room = width.saturating_sub(TIME + 5);
        let texts = room - (width * 27 / 100).max(12).min(room);
        let shown = |text: &str| columns(&glyphs.printable(text));
        let (mut service, mut name) = (columns("service"), columns("span"));
        for row in rows {
            let text = match &row.body {
                Body::Span(work) => {
                    service = service.max(shown(&work.span.service));
                    let attempt = work.attempt.map_or(0, |attempt| columns(&long_attempt(attempt)));
                    shown(&work.span.name) + attempt
                }
                Body::Wait(wait) => shown(&wait.label()),
                Body::Note(_) => continue,
            };
            let (stems, joint) = prefix(row, texts / 6, glyphs);
            name = name.max(columns(&stems) + columns(joint) + text);
        }
        if service + name > texts {
            // Names are more useful than services, which also have colours.
            service = service.min((texts * 7 / 20).max(texts.saturating_sub(name)));
            name = name.min(texts - service);
        }
        Self { service, name, bars: room - service - name }
    }

    /// Returns the column where the names begin.
    pub(super) const fn name_at(&self) -> usize {
        self.service + 2
    }

    /// Returns the column where the names end.
    pub(super) const fn name_end(&self) -> usize {
        self.name_at() + self.name
    }

    /// Returns the column where the time ends.
    pub(super) const fn time_end(&self) -> usize {
        self.name_end() + 1 + TIME
    }

    /// Returns the column where the bars begin.
    pub(super) const fn bars_at(&self) -> usize {
        self.time_end() + 2
    }

    /// Returns the number of tree levels drawn before the outer ones are left out.
    pub(super) fn levels(&self) -> usize {
        (self.name / 4).max(1)
    }
}

pub(super) fn long_attempt(attempt: u32) -> String {
    format!(" attempt {attempt}")
}

pub(super) fn short_attempt(attempt: u32) -> String {
    format!(" #{attempt}")
}

/// Returns the lines of the tree before a row's text: those of the ancestors, of which only the
/// `most` inner levels are drawn, and the joint of the row itself.
pub(super) fn prefix(row: &Row<'_>, most: usize, glyphs: &Glyphs) -> (String, &'static str) {
    let hidden = row.depth.saturating_sub(most);
    let mut stems = if hidden > 0 { format!("{} ", glyphs.ellipsis) } else { String::new() };
    let ancestor = |level: usize| {
        let follows = row.lines.checked_shr(u32::try_from(row.depth - level).unwrap_or(u32::MAX));
        if follows.unwrap_or(0) & 1 == 1 { glyphs.stem } else { "  " }
    };
    stems.extend((hidden + 1..row.depth).map(ancestor));
    let joint = match row.body {
        Body::Wait(_) => glyphs.wait,
        Body::Span(_) if row.depth == 0 => "",
        Body::Span(_) if row.lines & 1 == 1 => glyphs.tee,
        Body::Span(_) => glyphs.corner,
        Body::Note(_) => {
            if row.depth > 0 {
                stems.push_str(ancestor(row.depth));
            }
            if row.children { glyphs.stem } else { "  " }
        }
    };
    (stems, joint)
}
