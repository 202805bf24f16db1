//! What stands where.

use std::collections::HashMap;

use super::Picture;
use super::axis::Axis;
use super::canvas::Font;
use crate::verify::check::Finding;
use crate::verify::id::SpanRef;
use crate::verify::span::Span;
use crate::verify::text::wrap;
use crate::verify::trace::Trace;
use crate::verify::waterfall::Waterfall;
use crate::verify::waterfall::notes::Mark;
use crate::verify::waterfall::rows::{self, Body, Row};

pub(super) const WIDTH: f64 = 960.0;
pub(super) const MARGIN: f64 = 18.0;
/// Between the levels of the tree.
pub(super) const INDENT: f64 = 16.0;
/// Between the name of a span and what stands beside it.
pub(super) const GAP: f64 = 7.0;
/// Deeper levels are not indented further.
const DEEPEST: usize = 14;
/// Title, summary and legend.
const HEAD: f64 = 92.0;
/// Of more findings than this only the number is shown.
const MOST_FINDINGS: usize = 6;

/// The parts of a picture with their places.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) lines: Vec<Line<'a>>,
    pub(super) axis: Axis,
    /// Where the column of names ends.
    pub(super) names_end: f64,
    /// Where the bars end.
    pub(super) bars_end: f64,
    pub(super) height: f64,
    /// Services by the order in which they appear.
    pub(super) services: Vec<&'a str>,
    /// The middle of the row of each span that is drawn.
    pub(super) spans: HashMap<SpanRef, (&'a Span, f64)>,
}

/// A line of the picture.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// Its middle.
    pub(super) y: f64,
    pub(super) content: Content<'a>,
}

#[derive(Debug)]
pub(super) enum Content<'a> {
    /// What a trace begins with where there are several.
    Heading(&'a Trace),
    Row(Row<'a>),
    /// So many spans of a trace are not drawn.
    More(usize),
    /// The first line of a finding.
    Finding(&'a Finding),
    /// A further one.
    Sentence(String),
    /// So many findings are not shown.
    MoreFindings(usize),
}

impl Content<'_> {
    const fn height(&self) -> f64 {
        match self {
            Self::Heading(_) => 34.0,
            Self::Row(Row { body: Body::Span(..), .. }) => 27.0,
            Self::Row(Row { body: Body::Wait(_), .. }) => 23.0,
            Self::Finding(_) => 36.0,
            Self::Row(_) | Self::More(_) | Self::Sentence(_) | Self::MoreFindings(_) => 19.0,
        }
    }

    const fn is_below_the_bars(&self) -> bool {
        matches!(self, Self::Finding(_) | Self::Sentence(_) | Self::MoreFindings(_))
    }
}

impl<'a> Layout<'a> {
    pub(super) fn of(picture: &Picture<'a>) -> Self {
        let contents = contents(picture);
        let rows =
            || contents.iter().filter_map(|content| if let Content::Row(row) = content { Some(row) } else { None });
        let widest = rows().map(name_width).fold(180.0, f64::max);
        let names_end = MARGIN + widest.min(WIDTH * 0.46);
        let left = names_end + 18.0;
        let axis = Axis::new(&picture.traces, rows(), left, WIDTH - MARGIN - left);
        let mut services: Vec<&str> = Vec::new();
        for service in picture.traces.iter().flat_map(|trace| trace.services()) {
            if !services.contains(&service) {
                services.push(service);
            }
        }
        let (mut lines, mut spans) = (Vec::new(), HashMap::new());
        let (mut y, mut bars_end) = (HEAD, HEAD);
        for content in contents {
            let height = content.height();
            let middle = y + height / 2.0;
            y += height;
            if let Content::Row(Row { body: Body::Span(span, _), .. }) = &content {
                spans.insert(span.reference(), (*span, middle));
            }
            if !content.is_below_the_bars() {
                bars_end = y;
            }
            lines.push(Line { y: middle, content });
        }
        Self { lines, axis, names_end, bars_end, height: y + MARGIN, services, spans }
    }

    /// The colour of a service: its place in the order of appearance.
    pub(super) fn colour(&self, service: &str) -> usize {
        self.services.iter().position(|known| *known == service).unwrap_or(0) % 6
    }
}

/// Where the name of a row begins.
pub(super) fn name_at(row: &Row<'_>) -> f64 {
    let own = row.place.depth.min(DEEPEST) as f64 * INDENT;
    let further = if matches!(row.body, Body::Note(_)) { INDENT } else { 0.0 };
    MARGIN + own + further
}

fn name_width(row: &Row<'_>) -> f64 {
    let name = match &row.body {
        Body::Span(span, attempt) => Font::Normal.width(&span.name) + GAP + Font::Small.width(&beside(span, *attempt)),
        Body::Wait(wait) => Font::Small.width(&wait.label()) + INDENT,
        Body::Note(_) => return 0.0,
    };
    // A pixel for what is lost to rounding.
    name_at(row) - MARGIN + name + 1.0
}

/// What stands beside the name of a span: which attempt it is, and its service.
pub(super) fn beside(span: &Span, attempt: Option<u32>) -> String {
    attempt.map_or_else(|| span.service.to_string(), |attempt| format!("attempt {attempt} · {}", span.service))
}

fn contents<'a>(picture: &Picture<'a>) -> Vec<Content<'a>> {
    let mut contents = Vec::new();
    for trace in &picture.traces {
        if picture.traces.len() > 1 {
            contents.push(Content::Heading(trace));
        }
        let mut waterfall = Waterfall::new(trace).max_rows(picture.max_rows);
        if let Some(traces) = picture.among {
            waterfall = waterfall.within(traces);
        }
        if let Some(report) = picture.report {
            waterfall = waterfall.report(report);
        }
        let (rows, left_out) = rows::of(&waterfall);
        let mut above: Option<&Span> = None;
        for row in rows {
            if let Body::Span(span, _) = &row.body {
                above = Some(span);
            }
            if !above.is_some_and(|span| is_shown_by_arrows(picture, span, &row)) {
                contents.push(Content::Row(row));
            }
        }
        if left_out > 0 {
            contents.push(Content::More(left_out));
        }
    }
    contents.extend(findings(picture));
    contents
}

/// A note on links needs no words where every such link of the span is an arrow.
fn is_shown_by_arrows(picture: &Picture<'_>, span: &Span, row: &Row<'_>) -> bool {
    let Body::Note(note) = &row.body else { return false };
    let drawn = |reference: SpanRef| {
        let trace = picture.traces.iter().find(|trace| trace.id() == reference.trace_id);
        trace.is_some_and(|trace| trace.span(reference.span_id).is_some())
    };
    match note.mark {
        Mark::To => span.links.iter().all(|link| drawn(link.target)),
        Mark::From => {
            let others = picture.among.into_iter().flatten().filter(|other| other.id() != span.trace_id);
            let mut sources = others
                .flat_map(|other| other.spans())
                .filter(|source| source.links.iter().any(|link| link.target == span.reference()));
            sources.all(|source| drawn(source.reference()))
        }
        Mark::Bad | Mark::Nowhere => false,
    }
}

fn findings<'a>(picture: &Picture<'a>) -> Vec<Content<'a>> {
    let Some(report) = picture.report else { return Vec::new() };
    let all: Vec<&Finding> = picture.traces.iter().flat_map(|trace| report.of(trace.id())).collect();
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
