//! Tests that your traces are whole (feature `testing`).
//!
//! A trace breaks unnoticed: a handler publishes from a spawned task, a context is taken from the
//! wrong place, a retry starts a new trace. A [`TestBed`] runs your services on the embedded
//! broker, with the code that runs in production. When everything is [settled](TestBed::settled),
//! the captured spans show what happened, and one line asserts it:
//!
//! ```no_run
//! # let bed = traced_broker::testing::TestBed::new();
//! bed.trace("POST /orders")
//!     .assert_whole()
//!     .hops(["orders", "shipments"])
//!     .attempts("orders", 2)
//!     .dead_lettered("shipments.dead");
//! ```
//!
//! A failed assertion draws the trace and names the break:
//!
//! ```text
//! the trace `POST /orders` is broken: parent not exported
//!
//! trace 4bf92f3577b34da6a3ce929d0e0e4736  ✗ broken
//! 2 services · 3 spans · 2.11 ms · 90.4 µs in queues (4 %)
//! …
//! ```
//!
//! - [`TestBed`]: an embedded broker for one test, with its [`Capture`], which waits until
//!   everything is settled.
//! - [`Capture`]: the spans of one test, including those of global tracers, apart from those of
//!   concurrent tests.
//! - [`CapturedTrace`]: the assertions.
//! - [`simulation`]: the same services under thousands of seeds, faults and virtual time.
//!
//! `examples/tested_service` is a small service with such a suite. Enable the feature in
//! `[dev-dependencies]`.

mod assertions;
mod bed;
mod capture;
mod captured;
mod exported;
mod routes;
pub mod simulation;
mod spans;
mod unsettled;

pub use bed::{DEFAULT_PATIENCE, TestBed};
pub use capture::Capture;
pub use captured::CapturedTrace;
pub use spans::MOST_SPANS;
pub use unsettled::Unsettled;
