//! The judge of `tests/chaos.rs` judged: histories with planted breaks, messages with planted
//! damage, the draws of a seed, and the proxy. It needs no server.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "the command uses the rest of these modules")]

#[path = "chaos/checker/mod.rs"]
mod checker;
#[path = "chaos/history.rs"]
mod history;
#[path = "chaos/known.rs"]
mod known;
#[path = "chaos/plan.rs"]
mod plan;
#[path = "chaos/proxy.rs"]
mod proxy;
#[path = "chaos/recipe.rs"]
mod recipe;
#[path = "chaos/recorder.rs"]
mod recorder;
#[path = "chaos/scenario.rs"]
mod scenario;

#[path = "chaos_checker/connections.rs"]
mod connections;
#[path = "chaos_checker/draws.rs"]
mod draws;
#[path = "chaos_checker/judgement.rs"]
mod judgement;
#[path = "chaos_checker/messages.rs"]
mod messages;
#[path = "chaos_checker/planted.rs"]
mod planted;
#[path = "chaos_checker/planted_resources.rs"]
mod planted_resources;
#[path = "chaos_checker/run.rs"]
mod run;
