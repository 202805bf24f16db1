//! The answer to one publish, and its receiver.

use std::sync::Arc;
use std::task::Waker;

use super::Flights;
use crate::driver::{Outbound, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Receipt;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The answer to one publish, and the task that waits for it.
pub(crate) struct Slot {
    pub(super) flights: Arc<Flights>,
    pub(super) state: Mutex<SlotState>,
    pub(crate) clock: Clock,
}

#[derive(Debug, Default)]
pub(super) struct SlotState {
    pub(super) answer: Option<Answer>,
    pub(super) waker: Option<Waker>,
}

/// The outcome of one publish.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) result: Result<Receipt>,
    /// The message, if it was certainly not sent and may be sent again.
    pub(crate) message: Option<Box<Outbound>>,
    /// `true` if the driver was given the message.
    pub(crate) was_sent: bool,
}

/// The time at which a publish was given to the driver, as a number of looks; 0 if it has none.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    pub(super) since: AtomicU64,
    pub(super) is_listed: AtomicBool,
}

impl Clock {
    pub(super) fn stop(&self) {
        self.since.store(0, Ordering::Relaxed);
    }
}

impl Slot {
    pub(super) fn tell(&self, answer: Answer) {
        self.tell_unless(|_| false, answer);
    }

    /// Tells the sender that no answer came in time. The driver may still answer, and the place
    /// stays taken until then.
    pub(crate) fn give_up(&self, error: Error) {
        let late = Answer { result: Err(error), message: None, was_sent: true };
        self.tell_unless(|state| state.answer.is_some(), late);
    }

    fn tell_unless(&self, is_told: impl FnOnce(&SlotState) -> bool, answer: Answer) {
        let waker = {
            let mut state = self.state.lock();
            if is_told(&state) {
                return;
            }
            state.answer = Some(answer);
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Place<Receipt> for Slot {
    fn answer(&self, result: Result<Receipt>, message: Option<Box<Outbound>>) {
        // Freed before the answer is known, so that a sender that gets the answer finds the place
        // free.
        self.clock.stop();
        self.flights.free();
        self.tell(Answer { result, message, was_sent: true });
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Answer {
    /// Returns `true` if the topic may have been deleted at the broker.
    pub(crate) fn is_missing_topic(&self) -> bool {
        self.message.is_some() || self.result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }
}
