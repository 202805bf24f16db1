//! The runtime: its tasks are tasks of the checker.

use std::cell::RefCell;
use std::future::Future;

use shuttle::future::{AbortHandle, JoinHandle, spawn};

// All tasks of a run are on one thread.
thread_local!(static TASKS: RefCell<Vec<AbortHandle>> = const { RefCell::new(Vec::new()) });

/// The current runtime.
#[derive(Debug)]
pub(crate) struct Handle;

impl Handle {
    pub(crate) fn try_current() -> Result<Self, ()> {
        Ok(Self)
    }

    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let task = spawn(task);
        TASKS.with_borrow_mut(|tasks| tasks.push(task.abort_handle()));
        task
    }
}

/// Ends the runtime with all tasks that were started on it. Further ones are started on another.
pub(crate) fn end_runtime() {
    TASKS.take().iter().for_each(AbortHandle::abort);
}

pub(super) fn begin() {
    TASKS.take();
}
