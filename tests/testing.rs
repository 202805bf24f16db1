//! The tools for users' tests: captures that do not disturb each other, the wait until the
//! application is idle, and assertions that fail when they should.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "testing/apart.rs"]
mod apart;
#[path = "testing/asserting.rs"]
mod asserting;
#[path = "testing/globals.rs"]
mod globals;
#[path = "testing/settling.rs"]
mod settling;
#[path = "testing/shop.rs"]
mod shop;
