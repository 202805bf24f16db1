//! The order of the spans.

use std::collections::HashMap;

use crate::verify::trace::Trace;

/// The place of a span in the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The position of the span in the trace.
    pub(super) position: usize,
    pub(super) depth: usize,
    pub(super) lines: u64,
    pub(super) children: bool,
}

/// Iterates over the spans in the order of the tree.
///
/// Each span without an exported parent starts a tree, as does the first span of a cycle. The walk
/// is not recursive, because the depth of a trace is unbounded.
pub(super) fn walk(trace: &Trace) -> impl Iterator<Item = Place> {
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
    let mut stack: Vec<Place> = Vec::new();
    std::iter::from_fn(move || {
        if stack.is_empty() {
            let position = starts.find(|position| !seen[*position])?;
            seen[position] = true;
            stack.push(Place { position, depth: 0, lines: 0, children: false });
        }
        let place = stack.pop()?;
        let mut below = children.remove(&place.position).unwrap_or_default();
        below.retain(|child| !std::mem::replace(&mut seen[*child], true));
        for (rank, child) in below.iter().rev().enumerate() {
            let lines = place.lines << 1 | u64::from(rank > 0);
            stack.push(Place { position: *child, depth: place.depth + 1, lines, children: false });
        }
        Some(Place { children: !below.is_empty(), ..place })
    })
}
