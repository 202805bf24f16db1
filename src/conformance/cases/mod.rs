//! The cases, by area.

mod delays;
mod delivery;
mod hostile;
mod lifecycle;
mod order;
mod patterns;
mod positions;
mod refusing;
mod restart;
mod runtime;
mod settlement;
mod stress;
mod telemetry;
mod traces;

use std::sync::LazyLock;

use super::case::Case;

/// Every case, by area.
pub fn cases() -> &'static [Case] {
    static ALL: LazyLock<Vec<Case>> = LazyLock::new(|| {
        [
            delivery::CASES,
            order::CASES,
            settlement::CASES,
            positions::CASES,
            delays::CASES,
            lifecycle::CASES,
            hostile::CASES,
            telemetry::CASES,
            runtime::CASES,
            patterns::CASES,
            stress::CASES,
            restart::CASES,
            &traces::cases(),
        ]
        .concat()
    });
    &ALL
}
