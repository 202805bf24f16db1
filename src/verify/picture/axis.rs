//! From times to pixels.

use crate::verify::trace::Trace;
use crate::verify::waterfall::rows::{Body, Row};

/// The width of a bar that would be narrower, in pixels.
const NARROWEST: f64 = 2.0;

/// The stretch of time that the bars show, and where.
#[derive(Clone, Copy, Debug)]
pub(in crate::verify) struct Axis {
    start: u64,
    end: u64,
    left: f64,
    width: f64,
}

impl Axis {
    /// Covers the traces, and the waits before them unless those would leave the spans too small to see.
    pub(in crate::verify) fn new<'a>(
        traces: &[&Trace],
        rows: impl Iterator<Item = &'a Row<'a>>,
        left: f64,
        width: f64,
    ) -> Self {
        let start = traces.iter().map(|trace| trace.start()).min().unwrap_or(0);
        let end = traces.iter().map(|trace| trace.end()).max().unwrap_or(0);
        let most = end.saturating_sub(start).saturating_mul(2);
        let waits = rows.filter_map(|row| match &row.body {
            Body::Wait(wait) => Some(wait.from),
            _ => None,
        });
        let near = waits.filter(|from| start.saturating_sub(*from) <= most);
        Self { start: near.min().map_or(start, |from| from.min(start)), end, left, width }
    }

    /// Where a time is; one outside is at the nearer end.
    pub(in crate::verify) fn x(&self, time: u64) -> f64 {
        let since = time.clamp(self.start, self.end.max(self.start)) - self.start;
        self.left + self.width * since as f64 / self.length().max(1) as f64
    }

    /// When it begins and ends.
    pub(in crate::verify) const fn period(&self) -> (u64, u64) {
        (self.start, self.end)
    }

    pub(in crate::verify) const fn left(&self) -> f64 {
        self.left
    }

    /// Where the bar for a time begins and how wide it is: however short, it can be seen, and however late, it is within the axis.
    pub(in crate::verify) fn stretch(&self, from: u64, to: u64) -> (f64, f64) {
        let width = (self.x(to) - self.x(from)).max(NARROWEST);
        (self.x(from).min(self.left + self.width - width), width)
    }

    /// Whether the time lies before what is shown.
    pub(in crate::verify) const fn is_before(&self, time: u64) -> bool {
        time < self.start
    }

    /// Round times, in nanoseconds since the start, with where they are: at most six, 0 among them.
    pub(in crate::verify) fn ticks(&self) -> Vec<(u64, f64)> {
        let length = self.length();
        let rough = (length / 5).max(1);
        let power = 10_u64.pow(rough.ilog10());
        let step = [1, 2, 5, 10]
            .iter()
            .map(|factor| power.saturating_mul(*factor))
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let times = (0..=5).map(|number| step.saturating_mul(number)).take_while(|time| *time <= length);
        times.map(|time| (time, self.x(self.start + time))).collect()
    }

    const fn length(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(length: u64) -> Axis {
        Axis { start: 100, end: 100 + length, left: 10.0, width: 200.0 }
    }

    #[test]
    fn ticks_are_round_and_few() {
        let times = |length| axis(length).ticks().iter().map(|(time, _)| *time).collect::<Vec<_>>();
        assert_eq!(times(1_000), [0, 200, 400, 600, 800, 1_000]);
        assert_eq!(times(1_234), [0, 500, 1_000]);
        assert_eq!(times(0), [0]);
        assert_eq!(times(3), [0, 1, 2, 3]);
        assert_eq!(times(u64::MAX / 2).len(), 5);
    }

    #[test]
    fn bars_can_be_seen_and_stay_within() {
        let stretches =
            [(100, 150), (120, 120), (200, 150), (500, u64::MAX)].map(|(from, to)| axis(100).stretch(from, to));
        assert_eq!(stretches, [(10.0, 100.0), (50.0, 2.0), (208.0, 2.0), (208.0, 2.0)]);
    }

    #[test]
    fn times_outside_are_at_the_ends() {
        assert_eq!([0, 100, 150, 200, 300].map(|time| axis(100).x(time)), [10.0, 10.0, 110.0, 210.0, 210.0]);
    }
}
