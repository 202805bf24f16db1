//! Bars and the ruler above them, in columns.

use std::time::Duration;

use super::line::Glyphs;
use crate::verify::latency::HumanDuration;
use crate::verify::layout::{Axis, Bar, BarKind};
use crate::verify::text::columns;

/// Returns the head of the bars: a rule with the time at its start, its end and, if there is room,
/// its middle.
pub(super) fn ruler(axis: &Axis, width: usize, glyphs: &Glyphs) -> String {
    let label = |nanos| HumanDuration(Duration::from_nanos(nanos)).to_string();
    let mut labels = vec!["0".to_owned(), label(axis.length())];
    if width >= 36 {
        labels.insert(1, label(axis.length() / 2));
    }
    let taken: usize = labels.iter().map(|label| columns(label)).sum();
    let gaps = labels.len() - 1;
    let (room, mut ruler) = (width.saturating_sub(taken), labels[0].clone());
    for (gap, label) in labels[1..].iter().enumerate() {
        // The first gap is the wider one if they cannot be equal.
        let wide = room / gaps + usize::from(gap < room % gaps);
        let rule = glyphs.rule.repeat(wide.saturating_sub(2));
        ruler.push_str(&if wide < 2 { " ".repeat(wide) } else { format!(" {rule} ") });
        ruler.push_str(label);
    }
    ruler
}

/// Returns a bar, including the columns before it.
pub(super) fn draw(bar: &Bar, axis: &Axis, width: usize, glyphs: &Glyphs) -> String {
    let halves = 2 * width;
    if halves == 0 {
        return String::new();
    }
    // A bar has at least half a column and stays within the axis.
    let half = |time| axis.at(0.0, halves as f64).x(time).round() as usize;
    let first = half(bar.from).min(halves - 1);
    let last = half(bar.to).clamp(first + 1, halves);
    match bar.kind {
        BarKind::Span => bar_of_halves(first, last, glyphs),
        BarKind::Instant => cells(first / 2, 1, glyphs.instant),
        BarKind::Open => cells(first / 2, 1, glyphs.full) + &cells(0, width - first / 2 - 1, glyphs.open),
        BarKind::Queue | BarKind::Retry => {
            let glyph = if bar.kind == BarKind::Queue { glyphs.queue } else { glyphs.retry };
            let cells = cells(first / 2, (last.div_ceil(2) - first / 2).max(1), glyph);
            let early = bar.from < axis.start();
            if early { cells.replacen(glyph, &glyphs.earlier.to_string(), 1) } else { cells }
        }
    }
}

fn bar_of_halves(first: usize, last: usize, glyphs: &Glyphs) -> String {
    let cell = |column: usize| match (first <= 2 * column, last >= 2 * column + 2) {
        (true, true) => glyphs.full,
        (true, false) => glyphs.left_half,
        (false, _) => glyphs.right_half,
    };
    let bar: String = (first / 2..last.div_ceil(2)).map(cell).collect();
    " ".repeat(first / 2) + &bar
}

fn cells(before: usize, count: usize, glyph: char) -> String {
    " ".repeat(before) + &glyph.to_string().repeat(count)
}
