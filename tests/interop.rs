//! Programs in other languages on real brokers, written the way each ecosystem does it: theirs to ours, ours to theirs, and through ours
//! from theirs to theirs. What holds is proved on the spans that both sides exported, and is what `docs/compatibility.md` says.
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
#[path = "interop/wire.rs"]
mod wire;
#[path = "interop/world.rs"]
mod world;
