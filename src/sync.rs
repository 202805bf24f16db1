//! The locks, atomics, threads, tasks and timers of the code that is model checked.
//!
//! `models/` compiles that code with another file in this place, so that the checker decides the
//! order of all that happens here.

#[allow(unused_imports, reason = "only the Kafka adapter has a thread")]
pub(crate) use std::thread;

pub(crate) use std::sync::atomic;

pub(crate) use futures_util::task::AtomicWaker;
pub(crate) use parking_lot::{Mutex, RwLock};
pub(crate) use tokio::runtime::Handle;
pub(crate) use tokio::sync::Notify;
pub(crate) use tokio::time;
