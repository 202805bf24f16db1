//! How many publishes are unconfirmed, and the bound of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};

/// The bound of what the client holds for the broker.
#[derive(Debug)]
pub(super) struct Places {
    taken: AtomicUsize,
    limit: usize,
    all_free: Notify,
}

/// One unconfirmed publish; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Places {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), limit, all_free: Notify::new() })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when there is none. The layer above waits for places; but publishes that it gave up still hold theirs.
    pub(super) fn take(self: &Arc<Self>) -> Result<Place> {
        let place = Place(Arc::clone(self));
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.limit {
            return Ok(place);
        }
        Err(Error::new(ErrorKind::Busy, "too many publishes are unconfirmed").with_context("limit", self.limit))
    }

    /// Waits until no publish is unconfirmed.
    pub(super) async fn all_free(&self) {
        loop {
            let freed = self.all_free.notified();
            if self.taken.load(Ordering::Acquire) == 0 {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.all_free.notify_waiters();
        }
    }
}
