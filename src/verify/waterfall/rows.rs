//! What stands in the picture, from top to bottom, before it is known how wide anything is.

use std::collections::HashMap;

use super::Waterfall;
use super::line::{Glyphs, Style};
use super::notes::{Note, Notes};
use super::waits::{Wait, Waits};
use crate::verify::span::Span;
use crate::verify::trace::Trace;

/// One row of the picture.
#[derive(Debug)]
pub(in crate::verify) struct Row<'a> {
    pub(in crate::verify) place: Place,
    pub(in crate::verify) body: Body<'a>,
}

#[derive(Debug)]
pub(in crate::verify) enum Body<'a> {
    Span(&'a Span, Option<u32>),
    Wait(Wait<'a>),
    Note(Note),
}

/// Where in the tree a row stands.
#[derive(Clone, Copy, Debug)]
pub(in crate::verify) struct Place {
    /// How many ancestors the span has.
    pub(in crate::verify) depth: usize,
    /// Whether siblings follow: bit 0 for the span itself, bit n for the ancestor n levels above
    /// it.
    lines: u64,
    joint: Joint,
}

#[derive(Clone, Copy, Debug)]
enum Joint {
    /// The span itself.
    Span,
    /// The wait before it.
    Wait,
    /// A note under it, with children to come or not.
    Note { children: bool },
}

/// The rows of a trace, and how many spans did not fit in.
pub(in crate::verify) fn of<'a>(waterfall: &Waterfall<'a>) -> (Vec<Row<'a>>, usize) {
    let trace = waterfall.trace;
    let (waits, notes) = (Waits::of(waterfall), Notes::of(waterfall));
    let (mut rows, mut drawn) = (Vec::new(), 0);
    for (position, place) in walk(trace) {
        if rows.len() >= waterfall.max_rows {
            break;
        }
        let span = &trace.spans()[position];
        let at = |joint| Place { joint, ..place.0 };
        rows.extend(waits.before(span).map(|wait| Row { place: at(Joint::Wait), body: Body::Wait(wait) }));
        rows.push(Row { place: at(Joint::Span), body: Body::Span(span, waits.attempt(span)) });
        let below = at(Joint::Note { children: place.1 });
        rows.extend(notes.under(span).into_iter().map(|note| Row { place: below, body: Body::Note(note) }));
        drawn += 1;
    }
    (rows, trace.spans().len() - drawn)
}

/// The spans in the order of the tree, each with its place and whether it has children.
///
/// Whatever has no exported parent starts a tree; so does the first span met of a cycle. It is done
/// without recursion, as nothing bounds the depth of a trace.
fn walk(trace: &Trace) -> impl Iterator<Item = (usize, (Place, bool))> {
    let spans = trace.spans();
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    let (mut roots, mut others) = (Vec::new(), Vec::new());
    for (position, span) in spans.iter().enumerate() {
        match span.parent.and_then(|parent| trace.position(parent)) {
            Some(parent) => {
                children.entry(parent).or_default().push(position);
                others.push(position);
            }
            None => roots.push(position),
        }
    }
    let mut starts = roots.into_iter().chain(others);
    let mut seen = vec![false; spans.len()];
    let mut stack: Vec<(usize, Place)> = Vec::new();
    std::iter::from_fn(move || {
        if stack.is_empty() {
            let start = starts.find(|position| !seen[*position])?;
            seen[start] = true;
            stack.push((start, Place { depth: 0, lines: 0, joint: Joint::Span }));
        }
        let (position, place) = stack.pop()?;
        let mut below = children.remove(&position).unwrap_or_default();
        below.retain(|child| !std::mem::replace(&mut seen[*child], true));
        for (rank, child) in below.iter().rev().enumerate() {
            let lines = place.lines << 1 | u64::from(rank > 0);
            stack.push((*child, Place { depth: place.depth + 1, lines, joint: Joint::Span }));
        }
        Some((position, (place, !below.is_empty())))
    })
}

impl Place {
    /// The lines of the tree before the row's text: those of the ancestors, of which only the
    /// `most` inner levels are drawn, and what joins the row itself.
    pub(super) fn prefix(self, most: usize, glyphs: &Glyphs) -> (String, &'static str) {
        let hidden = self.depth.saturating_sub(most);
        let mut stems = if hidden > 0 { format!("{} ", glyphs.ellipsis) } else { String::new() };
        let ancestor = |level: usize| {
            let follows = self.lines.checked_shr(u32::try_from(self.depth - level).unwrap_or(u32::MAX));
            if follows.unwrap_or(0) & 1 == 1 { glyphs.stem } else { "  " }
        };
        stems.extend((hidden + 1..self.depth).map(ancestor));
        let joint = match self.joint {
            Joint::Wait => glyphs.wait,
            Joint::Span if self.depth == 0 => "",
            Joint::Span if self.lines & 1 == 1 => glyphs.tee,
            Joint::Span => glyphs.corner,
            Joint::Note { children } => {
                if self.depth > 0 {
                    stems.push_str(ancestor(self.depth));
                }
                if children { glyphs.stem } else { "  " }
            }
        };
        (stems, joint)
    }
}

/// How a span's name is shown.
pub(super) fn name_style(span: &Span) -> Style {
    if span.is_error() {
        Style::Bad
    } else if span.is_producing() || span.is_processing() {
        Style::Strong
    } else {
        Style::Plain
    }
}
