//! Notifications and wakers, with a step before each operation.

use std::future::Future;
use std::sync::Arc;
use std::task::Waker;

/// Tokio's own notification.
#[derive(Debug, Default)]
pub(crate) struct Notify(Arc<tokio::sync::Notify>);

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notified(&self) -> impl Future<Output = ()> + Send + use<> {
        super::step();
        Arc::clone(&self.0).notified_owned()
    }

    pub(crate) fn notified_owned(self: Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        self.notified()
    }

    pub(crate) fn notify_one(&self) {
        super::step();
        self.0.notify_one();
    }

    pub(crate) fn notify_waiters(&self) {
        super::step();
        self.0.notify_waiters();
    }
}

/// The one of `futures`.
#[derive(Debug, Default)]
pub(crate) struct AtomicWaker(futures_util::task::AtomicWaker);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn register(&self, waker: &Waker) {
        super::step();
        self.0.register(waker);
    }

    pub(crate) fn wake(&self) {
        super::step();
        self.0.wake();
    }
}
