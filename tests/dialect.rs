//! The readers of other systems' contexts, on samples as those systems write them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "dialect/enveloped.rs"]
mod enveloped;
#[path = "dialect/headers.rs"]
mod headers;
#[path = "dialect/hostile.rs"]
mod hostile;
#[path = "dialect/sample.rs"]
mod sample;
