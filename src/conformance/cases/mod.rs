//! The cases, by area.

mod context;
mod delivery;
mod hostile;
mod lifecycle;
mod order;
mod refusing;
mod settlement;
mod telemetry;

use std::sync::LazyLock;

use super::case::Case;

/// Every case, by area.
pub fn cases() -> &'static [Case] {
    static ALL: LazyLock<Vec<Case>> = LazyLock::new(|| {
        [
            delivery::CASES,
            order::CASES,
            settlement::CASES,
            lifecycle::CASES,
            hostile::CASES,
            telemetry::CASES,
            context::CASES,
        ]
        .concat()
    });
    &ALL
}
