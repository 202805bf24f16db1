//! From times to columns.

use std::time::Duration;

use super::line::Glyphs;
use crate::verify::text::columns;

/// The stretch of time that the bars' columns stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    start: u64,
    end: u64,
    columns: usize,
}

/// What a bar stands for, and so how it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) enum Bar {
    /// A span with a length.
    Span,
    /// A span without a length, or one that ends before it starts.
    Instant,
    /// A span that never ended.
    Open,
    /// A message in the queue.
    Queue,
    /// A message waiting for its next delivery.
    Retry,
}

impl Axis {
    pub(super) const fn new(start: u64, end: u64, columns: usize) -> Self {
        Self { start, end, columns }
    }

    /// The head of the bars: a rule with the time at its start, its end and, where there is room,
    /// its middle.
    pub(super) fn ruler(&self, glyphs: &Glyphs) -> String {
        let length = self.end.saturating_sub(self.start);
        let label = |nanos| glyphs.duration(Duration::from_nanos(nanos));
        let mut labels = vec!["0".to_owned(), label(length)];
        if self.columns >= 36 {
            labels.insert(1, label(length / 2));
        }
        let taken: usize = labels.iter().map(|label| columns(label)).sum();
        let gaps = labels.len() - 1;
        let (room, mut ruler) = (self.columns.saturating_sub(taken), labels[0].clone());
        for (gap, label) in labels[1..].iter().enumerate() {
            // The first gap is the wider one when they cannot be equal.
            let wide = room / gaps + usize::from(gap < room % gaps);
            let rule = glyphs.rule.repeat(wide.saturating_sub(2));
            ruler.push_str(&if wide < 2 { " ".repeat(wide) } else { format!(" {rule} ") });
            ruler.push_str(label);
        }
        ruler
    }

    /// The bar for the time between `from` and `to`, the columns before it included.
    pub(super) fn bar(&self, kind: Bar, from: u64, to: u64, glyphs: &Glyphs) -> String {
        let halves = 2 * self.columns;
        if halves == 0 {
            return String::new();
        }
        // However short, half a column is shown, and however late, within the axis.
        let first = self.half(from).min(halves - 1);
        let last = self.half(to).clamp(first + 1, halves);
        match kind {
            Bar::Span => bar_of_halves(first, last, glyphs),
            Bar::Instant => cells(first / 2, 1, glyphs.instant),
            Bar::Open => cells(first / 2, 1, glyphs.full) + &cells(0, self.columns - first / 2 - 1, glyphs.open),
            Bar::Queue | Bar::Retry => {
                let glyph = if kind == Bar::Queue { glyphs.queue } else { glyphs.retry };
                let early = from < self.start;
                let bar = cells(first / 2, (last.div_ceil(2) - first / 2).max(1), glyph);
                if early { bar.replacen(glyph, &glyphs.earlier.to_string(), 1) } else { bar }
            }
        }
    }

    /// The half column in which `time` lies, rounded to the nearest edge.
    fn half(&self, time: u64) -> usize {
        let length = u128::from(self.end.saturating_sub(self.start)).max(1);
        let since = u128::from(time.clamp(self.start, self.end.max(self.start)) - self.start);
        let halves = 2 * self.columns as u128;
        usize::try_from((since * halves + length / 2) / length).unwrap_or(usize::MAX)
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
