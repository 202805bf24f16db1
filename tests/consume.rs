//! The consumer runtime, on the memory broker.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "consume/batches.rs"]
mod batches;
#[path = "consume/bridged_traces.rs"]
mod bridged_traces;
#[path = "consume/bridging.rs"]
mod bridging;
#[path = "consume/drain.rs"]
mod drain;
#[path = "consume/exceptions.rs"]
mod exceptions;
#[path = "consume/lanes.rs"]
mod lanes;
#[path = "consume/late.rs"]
mod late;
#[path = "consume/payloads.rs"]
mod payloads;
#[path = "consume/redriving.rs"]
mod redriving;
#[path = "consume/requests.rs"]
mod requests;
#[path = "consume/retries.rs"]
mod retries;
#[path = "consume/shop.rs"]
mod shop;
#[path = "consume/trials.rs"]
mod trials;
#[path = "consume/work.rs"]
mod work;
