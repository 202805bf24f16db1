//! The cases, by area.

mod context;
mod delays;
mod delivery;
mod forms;
mod hostile;
mod lifecycle;
mod metrics;
mod order;
mod patterns;
mod positions;
mod propagators;
mod refusing;
mod restart;
mod runtime;
mod settlement;
mod stress;
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
            positions::CASES,
            delays::CASES,
            lifecycle::CASES,
            hostile::CASES,
            forms::CASES,
            propagators::CASES,
            telemetry::CASES,
            context::CASES,
            metrics::CASES,
            runtime::CASES,
            patterns::CASES,
            stress::CASES,
            restart::CASES,
        ]
        .concat()
    });
    &ALL
}
