//! The page of a trace in a real browser: `tests/run page`.
//!
//! `UPDATE_SNAPSHOTS=1 tests/run page` takes the pictures of the documentation again.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails is a failed test")]
#![expect(clippy::print_stdout, reason = "times are for who reads along")]

#[path = "page/browser.rs"]
mod browser;
#[path = "verify/build.rs"]
#[allow(dead_code, reason = "every test target uses its own part")]
mod build;
#[path = "page/keys.rs"]
mod keys;
#[path = "page/pictures.rs"]
mod pictures;
#[path = "page/safety.rs"]
mod safety;
#[path = "verify/scenes.rs"]
#[allow(dead_code, reason = "every test target uses its own part")]
mod scenes;
#[path = "page/size.rs"]
mod size;

use traced_broker::verify::{Page, check};

use crate::build::{Span, traces};

/// Returns the page of the first trace of these spans.
fn page(spans: &[Span]) -> String {
    let traces = traces(spans);
    let report = check(&traces);
    Page::new(traces.iter().next().unwrap()).within(&traces).report(&report).to_string()
}
