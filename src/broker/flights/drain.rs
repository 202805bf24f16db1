//! The task that passes waiting publishes to the driver.

use std::sync::Arc;

use tokio::task::coop::consume_budget;

use super::Flights;
use crate::driver::Driver;

/// The right to pass waiting publishes to the driver. If it is dropped early, with the runtime of
/// its task, the waiting publishes are woken, and one of them takes its part.
pub(super) struct Drain {
    pub(super) flights: Arc<Flights>,
    pub(super) is_over: bool,
}

impl Drain {
    pub(super) async fn run<D: Driver>(mut self, driver: Arc<D>) {
        loop {
            while let Some(queued) = self.flights.next() {
                queued.send(&*driver);
                consume_budget().await;
            }
            if self.flights.is_done() {
                self.is_over = true;
                return;
            }
            self.flights.freed.notified().await;
        }
    }

    /// Passes on as many as there are places for.
    pub(super) fn pass<D: Driver>(&mut self, driver: &D) {
        while let Some(queued) = self.flights.next() {
            queued.send(driver);
        }
        self.is_over = true;
        if !self.flights.is_done() {
            self.flights.queue.lock().is_drained = false;
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if !self.is_over {
            self.flights.queue.lock().is_drained = false;
            self.flights.wake_waiting();
        }
    }
}
