//! The trials that wait until a commit has noted them.

use crate::driver::{Confirmation, Confirmer};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// The trials of a subscription that are to be committed, or are being committed.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// `true` if the next commit is not to wait for its time.
    is_due: AtomicBool,
    waiting: Mutex<Vec<Confirmer<()>>>,
    sent: Mutex<Vec<Confirmer<()>>>,
}

impl Notes {
    /// Returns the confirmation of a trial that was noted in its partition just now.
    pub(crate) fn await_commit(&self) -> Confirmation<()> {
        let (confirmer, confirmation) = Confirmation::pending();
        self.waiting.lock().push(confirmer);
        self.hurry();
        confirmation
    }

    /// Asks for a commit now.
    pub(crate) fn hurry(&self) {
        self.is_due.store(true, Ordering::Release);
    }

    /// Returns `true` if a commit is asked for.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due.load(Ordering::Acquire)
    }

    /// Begins a commit, before the positions for it are read.
    pub(crate) fn begin(&self) {
        self.is_due.store(false, Ordering::Release);
        self.sent.lock().append(&mut self.waiting.lock());
    }

    /// Answers all trials that wait, because no commit is sent for a while.
    pub(crate) fn refuse(&self) {
        // One lock after the other: beginning a commit holds both.
        let mut refused = std::mem::take(&mut *self.waiting.lock());
        refused.append(&mut self.sent.lock());
        for confirmer in refused {
            confirmer.confirm(Err(Error::new(ErrorKind::Unavailable, "partitions are about to be revoked")));
        }
    }

    /// Answers the trials of a commit, each with this answer.
    pub(crate) fn end(&self, answer: impl Fn() -> Result<()>) {
        for confirmer in self.sent.lock().drain(..) {
            confirmer.confirm(answer());
        }
    }
}
