//! The number of unconfirmed publishes, and its bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};

/// The bound of unconfirmed messages in the client.
#[derive(Debug)]
pub(crate) struct InFlight {
    taken: AtomicUsize,
    limit: usize,
    all_free: Notify,
}

/// One unconfirmed publish; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Permit(Arc<InFlight>);

impl InFlight {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), limit, all_free: Notify::new() })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if all places are taken. The layer above waits for a free place, but
    /// publishes that were given up there still hold theirs.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Permit> {
        let place = Permit(Arc::clone(self));
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.limit {
            return Ok(place);
        }
        Err(Error::new(ErrorKind::Busy, "too many publishes are unconfirmed").with_context("limit", self.limit))
    }

    /// Takes a place although all may be taken.
    pub(crate) fn count(self: &Arc<Self>) -> Permit {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Permit(Arc::clone(self))
    }

    /// Waits until no publish is unconfirmed.
    pub(crate) async fn all_free(&self) {
        loop {
            let freed = self.all_free.notified();
            if self.taken.load(Ordering::Acquire) == 0 {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.all_free.notify_waiters();
        }
    }
}
