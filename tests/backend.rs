//! Tests that run the contents of `deploy/`: the two Collector tiers, a trace backend, and the
//! dashboard over them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured, for those who ask with --nocapture")]

mod support;

#[path = "backend/chance.rs"]
mod chance;
#[path = "backend/dashboard.rs"]
mod dashboard;
#[path = "backend/files.rs"]
mod files;
#[path = "backend/judgement.rs"]
mod judgement;
#[path = "backend/sampling.rs"]
mod sampling;
#[path = "backend/tier.rs"]
mod tier;
#[path = "backend/traffic.rs"]
mod traffic;
