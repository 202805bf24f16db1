//! Stands in for `src/sync.rs`: the checker decides the order of all that happens here.
//!
//! Locks, atomics and threads are those of shuttle. `Notify` and `AtomicWaker` are the real ones,
//! with a step before each operation. What else the code takes from tokio (`oneshot`,
//! `CancellationToken`) is real, too, and an operation on it is part of the step around it.

mod runtime;
pub(crate) mod time;
mod wakers;

use std::time::Duration;

pub(crate) use shuttle::sync::atomic;
pub(crate) use shuttle::thread;
pub(crate) use shuttle_parking_lot::{Mutex, RwLock};

pub(crate) use runtime::{Handle, end_runtime};
pub(crate) use wakers::{AtomicWaker, Notify};

/// Ends a step: the checker may go on with any other task.
pub(crate) fn step() {
    thread::sleep(Duration::ZERO);
}

/// Begins another run of a model: with a new clock and no task.
pub(crate) fn begin() {
    time::begin();
    runtime::begin();
}
