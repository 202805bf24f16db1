//! How far chance goes.

use std::ops::RangeInclusive;

/// The numbers of heads among `flips` of a coin that shows them with this probability, but for those so few or so many that all of
/// them together come up in less than one of a million runs.
///
/// By Chernoff's inequality, the share q of heads or one further from p on the same side has at most the probability
/// exp(-n·D), D = q·ln(q/p) + (1-q)·ln((1-q)/(1-p)); each side gets half of the millionth.
pub(crate) fn plausible(flips: usize, probability: f64) -> RangeInclusive<usize> {
    let limit = (2.0 / 1e-6_f64).ln();
    let is_plausible = |heads: &usize| flips as f64 * divergence(*heads as f64 / flips as f64, probability) < limit;
    let expected = (flips as f64 * probability) as usize;
    let fewest = (0..=expected).find(is_plausible).unwrap_or(0);
    let most = (expected..=flips).rev().find(is_plausible).unwrap_or(flips);
    fewest..=most
}

fn divergence(share: f64, probability: f64) -> f64 {
    let part = |share: f64, probability: f64| if share > 0.0 { share * (share / probability).ln() } else { 0.0 };
    part(share, probability) + part(1.0 - share, 1.0 - probability)
}

#[test]
fn what_is_plausible_follows_from_the_number_of_flips() {
    // Five standard deviations, more or less: 5.4 of them hold this much of a normal distribution by the same inequality.
    let deviation = (10_000.0 * 0.05 * 0.95_f64).sqrt();
    let range = plausible(10_000, 0.05);
    assert!(
        (500.0 - *range.start() as f64) / deviation > 4.9 && (*range.end() as f64 - 500.0) / deviation < 6.0,
        "{range:?}"
    );
    assert!(!range.contains(&380) && !range.contains(&630), "{range:?}");
    assert_eq!(*plausible(20, 0.05).start(), 0);
    assert_eq!(plausible(0, 0.05), 0..=0);
}
