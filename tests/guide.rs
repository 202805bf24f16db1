//! The guide `docs/how-a-trace-crosses-a-queue.md`: its pictures are those of real runs.
//!
//! Each test runs a scene on the embedded broker, and compares the result with the guide's picture:
//! the same spans of the same services, with the same parents and links. Times and ids differ from
//! run to run. After an intended change, redraw the pictures with `UPDATE_SNAPSHOTS=1 cargo test
//! --test guide` and look at them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "guide/picture.rs"]
mod picture;
#[path = "guide/scenes.rs"]
mod scenes;
#[path = "guide/shop.rs"]
mod shop;
#[path = "guide/text.rs"]
mod text;
