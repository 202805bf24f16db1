//! The queue between the thread of a subscription and its stream.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::delivery::Item;
use crate::error::Error;

/// Maximum number of errors that wait to be reported. Further ones are left out.
const ERRORS: usize = 8;

/// The messages that were taken and not handed out, and the errors to report. The window bounds the
/// messages; those of revoked partitions are removed when their places become free.
#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// The number of errors among the items.
    errors: usize,
    waker: Option<Waker>,
    is_closed: bool,
}

impl Queue {
    /// Appends the items, and wakes the stream.
    pub(crate) fn push(&self, batch: Vec<Item>) {
        let mut state = self.0.lock();
        for item in batch {
            if item.is_ok() {
                state.items.push_back(item);
            } else if state.errors < ERRORS {
                state.errors += 1;
                state.items.push_back(item);
            }
        }
        let waker = if state.items.is_empty() { None } else { state.waker.take() };
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Appends the error with which the stream ends, however many others wait.
    pub(crate) fn end_with(&self, error: Error) {
        self.0.lock().items.push_back(Err(error));
        self.close();
    }

    /// Removes the messages that may no longer be handed out.
    pub(crate) fn purge(&self) {
        self.0.lock().items.retain(|item| !item.as_ref().is_ok_and(|taken| taken.is_given_up()));
    }

    /// Moves all items to `batch`. Returns `false` after the end.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, batch: &mut VecDeque<Item>) -> Poll<bool> {
        let mut state = self.0.lock();
        if !state.items.is_empty() {
            std::mem::swap(&mut state.items, batch);
            state.errors = 0;
            return Poll::Ready(true);
        }
        if state.is_closed {
            return Poll::Ready(false);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Ends the stream, after the errors that wait.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        let waker = state.waker.take();
        drop(state);
        self.purge();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Closes the queue when the thread ends, also in a panic.
pub(crate) struct Closing(pub(crate) std::sync::Arc<Queue>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn the_last_error_is_told_however_many_wait() {
        let queue = Queue::default();
        let error = |kind| Error::new(kind, "reported");
        queue.push((0..2 * ERRORS).map(|_| Err(error(ErrorKind::Unexpected))).collect());
        queue.end_with(error(ErrorKind::Conflict));
        let (mut batch, mut context) = (VecDeque::new(), Context::from_waker(noop_waker_ref()));
        assert_eq!(queue.poll_take(&mut context, &mut batch), Poll::Ready(true));
        let last = batch.pop_back().and_then(Result::err).map(|error| error.kind());
        assert_eq!((batch.len(), last), (ERRORS, Some(ErrorKind::Conflict)));
        assert_eq!(queue.poll_take(&mut context, &mut batch), Poll::Ready(false));
    }
}
