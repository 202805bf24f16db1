//! Background jobs, the references that tie them to the requests, and spawned work.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

#[path = "job/current.rs"]
mod current;
#[path = "job/delayed.rs"]
mod delayed;
#[path = "job/exported.rs"]
mod exported;
#[path = "job/hostile.rs"]
mod hostile;
#[path = "job/outcomes.rs"]
mod outcomes;
#[path = "job/program.rs"]
mod program;
#[path = "job/references.rs"]
mod references;
#[path = "job/scheduled.rs"]
mod scheduled;
#[path = "job/ties.rs"]
mod ties;
