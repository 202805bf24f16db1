//! How the columns are shared out.

use super::line::Glyphs;
use super::rows::{Body, Row};
use crate::verify::text::columns;

/// Durations take at most this many columns, with a mark before them.
const TIME: usize = 8;

/// Where the four columns stand: service, name in the tree, time, bars.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) service: usize,
    pub(super) name: usize,
    pub(super) bars: usize,
}

impl Plan {
    /// Gives the bars a quarter of the width, the texts what they need of the rest, and what is
    /// over to the bars.
    pub(super) fn new(rows: &[Row<'_>], width: usize, glyphs: &Glyphs) -> Self {
        // Two spaces after the service, one before the time, two after it.
        let room = width.saturating_sub(TIME + 5);
        let texts = room - (width * 27 / 100).max(12).min(room);
        let shown = |text: &str| columns(&glyphs.printable(text));
        let (mut service, mut name) = (columns("service"), columns("span"));
        for row in rows {
            let text = match &row.body {
                Body::Span(span, attempt) => {
                    service = service.max(shown(&span.service));
                    let attempt = attempt.map_or(0, |attempt| columns(&long_attempt(attempt)));
                    shown(&span.name) + attempt
                }
                Body::Wait(wait) => shown(&wait.label()),
                Body::Note(_) => continue,
            };
            let (stems, joint) = row.place.prefix(texts / 6, glyphs);
            name = name.max(columns(&stems) + columns(joint) + text);
        }
        if service + name > texts {
            // Names tell more than services, which also have colours.
            service = service.min((texts * 7 / 20).max(texts.saturating_sub(name)));
            name = name.min(texts - service);
        }
        Self { service, name, bars: room - service - name }
    }

    /// Where the names begin.
    pub(super) const fn name_at(&self) -> usize {
        self.service + 2
    }

    /// Where the names end.
    pub(super) const fn name_end(&self) -> usize {
        self.name_at() + self.name
    }

    /// Where the time ends.
    pub(super) const fn time_end(&self) -> usize {
        self.name_end() + 1 + TIME
    }

    /// Where the bars begin.
    pub(super) const fn bars_at(&self) -> usize {
        self.time_end() + 2
    }

    /// How many levels of the tree are drawn before the outer ones are left out.
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
