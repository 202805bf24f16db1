//! Queue latencies: quantiles, and durations as text.

use std::fmt;
use std::time::Duration;

use super::hop::QueueHop;

/// A set of durations with its quantiles.
///
/// ```
/// use std::time::Duration;
/// use traced_broker::verify::Latencies;
///
/// let latencies = Latencies::from_iter((1..=100).map(Duration::from_millis));
/// assert_eq!(latencies.quantile(0.5), Some(Duration::from_millis(50)));
/// assert_eq!(latencies.quantile(0.99), Some(Duration::from_millis(99)));
///
/// assert_eq!(Latencies::default().quantile(0.5), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Collects the times that messages waited before their first delivery.
    ///
    /// Redeliveries are left out: their wait since the send includes the earlier attempts.
    #[must_use]
    pub fn of<'a>(hops: impl IntoIterator<Item = &'a QueueHop<'a>>) -> Self {
        hops.into_iter().filter(|hop| !hop.is_redelivery()).map(|hop| hop.queue).collect()
    }

    /// Returns the smallest duration that at least the share `quantile` of all durations does not
    /// exceed (nearest rank); `None` if there are none.
    ///
    /// `quantile` is between 0 and 1; a value outside is clamped.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let rank = (quantile.clamp(0.0, 1.0) * self.0.len() as f64).ceil();
        let rank = rank as usize;
        self.0.get(rank.saturating_sub(1)).copied()
    }

    /// Returns the number of durations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if there are no durations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        let mut sorted: Vec<_> = durations.into_iter().collect();
        sorted.sort_unstable();
        Self(sorted)
    }
}

/// A duration formatted for people: three digits and a unit up to a minute, then two units; at most
/// eight characters.
///
/// ```
/// use std::time::Duration;
/// use traced_broker::verify::HumanDuration;
///
/// assert_eq!(HumanDuration(Duration::from_nanos(840)).to_string(), "840 ns");
/// assert_eq!(HumanDuration(Duration::from_micros(12_345)).to_string(), "12.3 ms");
/// assert_eq!(HumanDuration(Duration::from_secs(125)).to_string(), "2m 05s");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(
    /// The duration to format.
    pub Duration,
);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let text = match nanos {
            0 => "0".to_owned(),
            1..1_000 => format!("{nanos} ns"),
            // The bounds exclude values that three digits would round up to the next unit.
            1_000..999_500 => three_digits(nanos, 1_000, "µs"),
            999_500..999_500_000 => three_digits(nanos, 1_000_000, "ms"),
            999_500_000..59_950_000_000 => three_digits(nanos, 1_000_000_000, "s"),
            _ => two_units((nanos + 500_000_000) / 1_000_000_000),
        };
        f.pad(&text)
    }
}

/// Formats `nanos` in a unit of `unit` nanoseconds, rounded half up, with as many decimals as make
/// three digits.
fn three_digits(nanos: u128, unit: u128, name: &str) -> String {
    let hundredths = (nanos * 100 + unit / 2) / unit;
    match hundredths {
        0..1_000 => format!("{}.{:02} {name}", hundredths / 100, hundredths % 100),
        _ => {
            let tenths = (nanos * 10 + unit / 2) / unit;
            if tenths < 1_000 {
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            } else {
                format!("{} {name}", (nanos + unit / 2) / unit)
            }
        }
    }
}

fn two_units(seconds: u128) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if hours == 0 {
        format!("{minutes}m {:02}s", seconds % 60)
    } else if days == 0 {
        format!("{hours}h {:02}m", minutes % 60)
    } else if days < 100 {
        format!("{days}d {:02}h", hours % 24)
    } else {
        format!("{days}d")
    }
}
