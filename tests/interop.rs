//! Programs in other languages on real brokers, written in the usual way of each ecosystem: theirs
//! to ours, ours to theirs, and from theirs through ours to theirs. The results are proved on the
//! spans that both sides exported, and are stated in `docs/compatibility.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

#[path = "conformance/collector.rs"]
mod collector;
#[path = "interop/combinations.rs"]
mod combinations;
#[path = "interop/directions.rs"]
mod directions;
#[path = "interop/evidence.rs"]
mod evidence;
#[path = "interop/library.rs"]
mod library;
#[path = "interop/page.rs"]
mod page;
#[path = "interop/program.rs"]
mod program;
#[path = "interop/setup.rs"]
mod setup;
#[path = "interop/wire.rs"]
mod wire;
