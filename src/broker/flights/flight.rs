//! The sender's side of a publish.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::slot::{Answer, Slot};
use super::{Flights, closed};
use crate::driver::Driver;
use crate::error::{Error, ErrorKind};
use crate::sync::Handle;
use crate::sync::time::timeout;

/// The sender's side of one publish. Dropping it leaves the queue; a message that the driver has
/// keeps its place.
#[derive(Debug)]
pub(crate) enum Flight {
    /// Refused before it could take a place.
    Refused(Option<Error>),
    Waiting {
        slot: Option<Arc<Slot>>,
        /// Its number in the queue, if it had to wait there.
        queued: Option<u64>,
    },
}

impl Flight {
    /// Waits for the answer: in the queue for at most `limit`, then as long as the driver takes.
    pub(crate) async fn land<D: Driver>(&mut self, flights: &Arc<Flights>, driver: &Arc<D>, limit: Duration) -> Answer {
        let answer = match self {
            // Boxed, because few publishes wait in the queue.
            Self::Waiting { queued: Some(number), .. } => {
                let number = *number;
                Box::pin(self.land_from_queue(number, flights, driver, limit)).await
            }
            _ => (&mut *self).await,
        };
        if let Self::Waiting { slot, .. } = self
            && let Some(slot) = slot.take()
        {
            flights.recycle(slot);
        }
        answer
    }

    async fn land_from_queue<D: Driver>(
        &mut self,
        number: u64,
        flights: &Arc<Flights>,
        driver: &Arc<D>,
        limit: Duration,
    ) -> Answer {
        // Outside a runtime there is no time, so the limit of the wait would not be kept.
        if Handle::try_current().is_err() && flights.leave(number) {
            return Answer { result: Err(no_runtime()), message: None, was_sent: false };
        }
        let queued = timeout(limit, InQueue { flight: self, flights, driver });
        match queued.await {
            Ok(answer) => answer,
            Err(_) if flights.leave(number) => Answer { result: Err(no_place(limit)), message: None, was_sent: false },
            Err(_) => self.await,
        }
    }

    /// Stops waiting. Returns `true` if the driver has the message.
    pub(crate) fn abandon(&mut self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Waiting { slot, queued } => {
                let Some(slot) = slot.take() else { return true };
                slot.state.lock().waker = None;
                !queued.is_some_and(|number| slot.flights.leave(number))
            }
        }
    }
}

impl Future for Flight {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let slot = match self.get_mut() {
            Self::Refused(error) => {
                let result = Err(error.take().unwrap_or_else(closed));
                return Poll::Ready(Answer { result, message: None, was_sent: false });
            }
            Self::Waiting { slot, .. } => slot,
        };
        let Some(waiting) = slot else {
            return Poll::Ready(Answer { result: Err(closed()), message: None, was_sent: true });
        };
        let answer = {
            let mut state = waiting.state.lock();
            let answer = state.answer.take();
            if answer.is_none() && !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            answer
        };
        answer.map_or(Poll::Pending, Poll::Ready)
    }
}

/// A publish in the queue.
struct InQueue<'a, D> {
    flight: &'a mut Flight,
    flights: &'a Arc<Flights>,
    driver: &'a Arc<D>,
}

impl<D: Driver> Future for InQueue<'_, D> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.get_mut();
        let answer = Pin::new(&mut *this.flight).poll(cx);
        if answer.is_pending() {
            this.flights.ensure_drained(this.driver);
        }
        answer
    }
}

fn no_runtime() -> Error {
    let message = "the maximum number of publishes is in flight, and only within a tokio runtime can a publish wait";
    Error::new(ErrorKind::Busy, message)
}

fn no_place(limit: Duration) -> Error {
    Error::new(ErrorKind::Busy, "the maximum number of publishes was in flight for all of the time limit")
        .with_context("limit_ms", limit.as_millis())
}
