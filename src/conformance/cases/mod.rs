//! The cases, by area.

mod copies;
mod crowds;
mod delays;
mod delivery;
mod deploys;
mod driver;
mod failures;
mod fatal;
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
mod traces;

use std::sync::LazyLock;

use super::case::Case;

/// Returns every case, by area.
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
            metrics::CASES,
            runtime::CASES,
            failures::CASES,
            crowds::CASES,
            deploys::CASES,
            patterns::CASES,
            copies::CASES,
            &driver::cases(),
            &traces::cases(),
            restart::CASES,
            failures::killed::CASES,
            deploys::killed::CASES,
            fatal::CASES,
            &driver::killing_cases(),
            traces::killed::CASES,
            // Last, because they run alone.
            stress::CASES,
            traces::many::CASES,
        ]
        .concat()
    });
    &ALL
}
