//! Checks on exported spans that a trace does not break at a queue in any of the known ways.
//!
//! The number at the start of a case's name is that of the [break](crate::conformance::breaks).

mod batches;
mod boundaries;
mod contexts;
mod dead_letters;
mod elsewhere;
mod endings;
mod foreign;
mod hops;
pub(super) mod killed;
pub(super) mod many;
mod outcomes;
mod parents;
mod policies;
mod propagators;
mod publishes;
mod retries;
mod surroundings;
mod time;

use crate::conformance::case::Case;

/// Returns the cases of all files, except those that kill the broker and those that take the whole
/// machine.
pub(super) fn cases() -> Vec<Case> {
    [
        parents::CASES,
        hops::CASES,
        surroundings::CASES,
        batches::CASES,
        retries::CASES,
        dead_letters::CASES,
        policies::CASES,
        boundaries::CASES,
        elsewhere::CASES,
        contexts::CASES,
        propagators::CASES,
        foreign::CASES,
        outcomes::CASES,
        publishes::CASES,
        endings::CASES,
        time::CASES,
    ]
    .concat()
}
