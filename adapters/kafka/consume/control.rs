//! The way to stop and to end a subscription from outside its thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::window::Window;
use crate::error::Result;

/// Stops and ends a subscription, and returns its result.
#[derive(Debug)]
pub(crate) struct Control {
    stopping: AtomicBool,
    ending: AtomicBool,
    window: Arc<Window>,
    group: Option<Box<str>>,
    /// Taken by the caller that waits for the end.
    ended: Mutex<Option<oneshot::Receiver<Result<()>>>>,
}

impl Control {
    /// Creates the control of a subscription of that group with that window, and the sender of its
    /// result.
    pub(crate) fn new(window: Arc<Window>, group: Option<&str>) -> (Arc<Self>, oneshot::Sender<Result<()>>) {
        let (answer, ended) = oneshot::channel();
        let (stopping, ending) = (AtomicBool::new(false), AtomicBool::new(false));
        let group = group.map(Box::from);
        (Arc::new(Self { stopping, ending, window, group, ended: Mutex::new(Some(ended)) }), answer)
    }

    /// Tells the subscription to take no more messages. Deliveries in hand can be settled until it
    /// ends.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.window.wake();
    }

    /// Tells the subscription to end.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.window.wake();
    }

    /// Returns the receiver of the result: the thread has ended, and the acknowledgements reached
    /// the broker or failed to.
    pub(crate) fn ended(&self) -> Option<oneshot::Receiver<Result<()>>> {
        self.ended.lock().take()
    }

    pub(crate) fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}
