//! The lines of the picture, with their positions.

use std::collections::HashMap;

use super::canvas::Font;
use crate::verify::check::Finding;
use crate::verify::id::SpanRef;
use crate::verify::layout::{Axis, Body, Layout, Mark, Note, Row, Section};
use crate::verify::span::Span;
use crate::verify::text::wrap;
use crate::verify::trace::Trace;

pub(super) const WIDTH: f64 = 960.0;
pub(super) const MARGIN: f64 = 18.0;
/// Space between the levels of the tree.
pub(super) const INDENT: f64 = 16.0;
/// Space between the name of a span and the text beside it.
pub(super) const GAP: f64 = 7.0;
/// Maximum depth of indentation.
const DEEPEST: usize = 14;
/// Height of the title, summary and legend.
const HEAD: f64 = 92.0;
/// Maximum number of findings shown; of the others only the number is shown.
const MOST_FINDINGS: usize = 6;

/// The parts of a picture with their positions.
#[derive(Debug)]
pub(super) struct Scene<'l, 'a> {
    pub(super) layout: &'l Layout<'a>,
    pub(super) axis: Axis,
    pub(super) lines: Vec<Line<'l, 'a>>,
    /// The end of the column of names.
    pub(super) names_end: f64,
    /// The lower end of the bars.
    pub(super) bars_end: f64,
    pub(super) height: f64,
    /// The middle of the row of each drawn span.
    pub(super) spans: HashMap<SpanRef, (&'a Span, f64)>,
}

/// A line of the picture.
#[derive(Debug)]
pub(super) struct Line<'l, 'a> {
    /// The middle of the line.
    pub(super) y: f64,
    pub(super) content: Content<'l, 'a>,
}

#[derive(Debug)]
pub(super) enum Content<'l, 'a> {
    /// The heading of a trace, if there are several.
    Heading(&'a Trace),
    Row(&'l Row<'a>),
    /// The number of spans of a trace that are not drawn.
    More(usize),
    /// The first line of a finding.
    Finding(&'a Finding),
    /// A further line of a finding.
    Sentence(String),
    /// The number of findings that are not shown.
    MoreFindings(usize),
}

impl Content<'_, '_> {
    const fn height(&self) -> f64 {
        match self {
            Self::Heading(_) => 34.0,
            Self::Row(Row { body: Body::Span(_), .. }) => 27.0,
            Self::Row(Row { body: Body::Wait(_), .. }) => 23.0,
            Self::Finding(_) => 36.0,
            Self::Row(_) | Self::More(_) | Self::Sentence(_) | Self::MoreFindings(_) => 19.0,
        }
    }

    const fn is_below_the_bars(&self) -> bool {
        matches!(self, Self::Finding(_) | Self::Sentence(_) | Self::MoreFindings(_))
    }
}

impl<'l, 'a> Scene<'l, 'a> {
    pub(super) fn of(layout: &'l Layout<'a>) -> Self {
        let widest = layout.rows().map(name_width).fold(180.0, f64::max);
        let names_end = MARGIN + widest.min(WIDTH * 0.46);
        let left = names_end + 18.0;
        let axis = layout.axis.at(left, WIDTH - MARGIN - left);
        let (mut lines, mut spans) = (Vec::new(), HashMap::new());
        let (mut y, mut bars_end) = (HEAD, HEAD);
        for content in contents(layout) {
            let height = content.height();
            let middle = y + height / 2.0;
            y += height;
            if let Content::Row(Row { body: Body::Span(work), .. }) = &content {
                spans.insert(work.span.reference(), (work.span, middle));
            }
            if !content.is_below_the_bars() {
                bars_end = y;
            }
            lines.push(Line { y: middle, content });
        }
        Self { layout, axis, lines, names_end, bars_end, height: y + MARGIN, spans }
    }

    /// Returns the colour of a service, by its order of appearance.
    pub(super) fn colour(&self, service: &str) -> usize {
        self.layout.rank(service) % 6
    }
}

/// Returns the position where the name of a row begins.
pub(super) fn name_at(row: &Row<'_>) -> f64 {
    let own = row.depth.min(DEEPEST) as f64 * INDENT;
    let further = if matches!(row.body, Body::Note(_)) { INDENT } else { 0.0 };
    MARGIN + own + further
}

fn name_width(row: &Row<'_>) -> f64 {
    let name = match &row.body {
        Body::Span(work) => Font::Normal.width(&work.span.name) + GAP + Font::Small.width(&work.beside()),
        Body::Wait(wait) => Font::Small.width(&wait.label()) + INDENT,
        Body::Note(_) => return 0.0,
    };
    // One pixel for rounding.
    name_at(row) - MARGIN + name + 1.0
}

fn contents<'l, 'a>(layout: &'l Layout<'a>) -> Vec<Content<'l, 'a>> {
    let mut contents = Vec::new();
    for section in &layout.sections {
        if layout.sections.len() > 1 {
            contents.push(Content::Heading(section.trace));
        }
        let shown = |row: &&Row<'_>| match &row.body {
            Body::Note(note) => !is_shown_by_arrows(layout, section, note),
            _ => true,
        };
        contents.extend(section.rows.iter().filter(shown).map(Content::Row));
        if section.left_out > 0 {
            contents.push(Content::More(section.left_out));
        }
    }
    contents.extend(findings(layout));
    contents
}

/// Returns `true` for a note on links if every such link of the span is drawn as an arrow.
fn is_shown_by_arrows(layout: &Layout<'_>, section: &Section<'_>, note: &Note<'_>) -> bool {
    match note.mark {
        Mark::To => note.about.links.iter().all(|link| layout.contains(link.target)),
        Mark::From => section.incoming(note.about).iter().all(|source| layout.contains(source.reference())),
        Mark::Bad | Mark::Nowhere => false,
    }
}

fn findings<'l, 'a>(layout: &Layout<'a>) -> Vec<Content<'l, 'a>> {
    let all: Vec<&Finding> = layout.sections.iter().flat_map(|section| section.findings.unwrap_or_default()).collect();
    let mut lines = Vec::new();
    for finding in all.iter().take(MOST_FINDINGS) {
        lines.push(Content::Finding(finding));
        let columns = Font::Small.columns(WIDTH - 2.0 * MARGIN - INDENT);
        lines.extend(wrap(&finding.message, columns, '…').into_iter().map(Content::Sentence));
    }
    if all.len() > MOST_FINDINGS {
        lines.push(Content::MoreFindings(all.len() - MOST_FINDINGS));
    }
    lines
}
