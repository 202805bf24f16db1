//! The ways in which a trace breaks at a queue, each made impossible: checked on the spans that were exported.
//!
//! The number at the head of a case's name is that of the [break](crate::conformance::breaks).

mod batches;
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

use super::super::case::Case;

/// The cases of all files but those that kill the broker and that take all of the machine.
pub(super) fn cases() -> Vec<Case> {
    [
        parents::CASES,
        hops::CASES,
        surroundings::CASES,
        batches::CASES,
        retries::CASES,
        dead_letters::CASES,
        policies::CASES,
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
