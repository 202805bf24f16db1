//! The time axis.

use super::{Body, Section};

/// The period of time that the bars show, and its position in the drawing.
#[derive(Clone, Copy, Debug)]
pub(in crate::verify) struct Axis {
    start: u64,
    end: u64,
    left: f64,
    width: f64,
}

impl Axis {
    /// Creates an axis from 0 to 1 that covers the traces, and the waits before them unless those
    /// would make the spans too small to see.
    pub(super) fn of(sections: &[Section<'_>]) -> Self {
        let start = sections.iter().map(|section| section.trace.start()).min().unwrap_or(0);
        let end = sections.iter().map(|section| section.trace.end()).max().unwrap_or(0);
        let most = end.saturating_sub(start).saturating_mul(2);
        let waits = sections.iter().flat_map(|section| &section.rows).filter_map(|row| match &row.body {
            Body::Wait(wait) => Some(wait.bar.from),
            _ => None,
        });
        let near = waits.filter(|from| start.saturating_sub(*from) <= most);
        Self { start: near.min().map_or(start, |from| from.min(start)), end, left: 0.0, width: 1.0 }
    }

    /// Sets the position.
    pub(in crate::verify) const fn at(self, left: f64, width: f64) -> Self {
        Self { left, width, ..self }
    }

    /// Returns the position of a time; a time outside is placed at the nearer end.
    pub(in crate::verify) fn x(&self, time: u64) -> f64 {
        let since = time.clamp(self.start, self.end.max(self.start)) - self.start;
        self.left + self.width * since as f64 / self.length().max(1) as f64
    }

    /// Returns the start and the width of the bar for a time: not narrower than `narrowest`, and
    /// within the axis.
    pub(in crate::verify) fn stretch(&self, from: u64, to: u64, narrowest: f64) -> (f64, f64) {
        let width = (self.x(to) - self.x(from)).max(narrowest);
        (self.x(from).min(self.left + self.width - width), width)
    }

    pub(in crate::verify) const fn start(&self) -> u64 {
        self.start
    }

    pub(in crate::verify) const fn length(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    pub(in crate::verify) const fn left(&self) -> f64 {
        self.left
    }

    /// Returns round times, in nanoseconds since the start, with their positions: at most six,
    /// including 0.
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
            [(100, 150), (120, 120), (200, 150), (500, u64::MAX)].map(|(from, to)| axis(100).stretch(from, to, 2.0));
        assert_eq!(stretches, [(10.0, 100.0), (50.0, 2.0), (208.0, 2.0), (208.0, 2.0)]);
    }

    #[test]
    fn times_outside_are_at_the_ends() {
        assert_eq!([0, 100, 150, 200, 300].map(|time| axis(100).x(time)), [10.0, 10.0, 110.0, 210.0, 210.0]);
    }
}
