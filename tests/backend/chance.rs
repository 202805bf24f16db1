//! Bounds for random outcomes.

use std::ops::RangeInclusive;

/// Returns the plausible numbers of heads in `flips` flips of a coin with this probability of
/// heads. The numbers outside the range, taken together, occur in less than one of a million runs.
///
/// By Chernoff's inequality, a share of heads that is q, or further from p on the same side, has at
/// most the probability exp(-n·D), D = q·ln(q/p) + (1-q)·ln((1-q)/(1-p)); each side gets half of
/// the millionth.
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
    // About five standard deviations: by the same inequality, 5.4 of them cover this share of a
    // normal distribution.
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
