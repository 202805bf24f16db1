//! The time during which a delivery can be settled.

use std::fmt;
use std::sync::Arc;

use crate::sync::Notify;
use crate::sync::atomic::{AtomicBool, Ordering};

/// The time during which deliveries belong to this process: from the hand-out until settling them
/// can have no effect any more, because their connection, assignment or group is gone, or another
/// consumer took them over.
///
/// A driver makes one for all deliveries that are lost together, hands it out with each of them,
/// and [ends](Self::end) it when they are lost. Clones are the same tenure.
///
/// A driver that knows beforehand [winds it down](Self::wind_down): what has begun may be finished
/// and settled, and nothing more begins.
///
/// The layer above asks before it begins a handler, before another attempt, and before it publishes
/// a dead letter. A running handler can wait for the end:
/// [`Received::lost`](crate::Received::lost).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use traced_broker::driver::Tenure;
///
/// let channel = Tenure::new();
/// let delivery = channel.clone();
/// assert!(!delivery.is_over());
///
/// tokio::spawn(async move { channel.end() }); // the channel was closed
/// delivery.over().await;
/// assert!(delivery.is_over());
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Tenure(Arc<State>);

#[derive(Default)]
struct State {
    over: AtomicBool,
    winding_down: AtomicBool,
    ended: Notify,
}

impl Tenure {
    /// Starts a tenure.
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces the end, for good, and wakes every task that waits for it: deliveries that a
    /// handler has begun on can still be settled, and the others are to be dropped.
    ///
    /// ```
    /// use traced_broker::driver::Tenure;
    ///
    /// let partition = Tenure::new();
    /// assert!(partition.may_begin());
    /// partition.wind_down(); // it moves once the deliveries in hand are settled
    /// assert!(!partition.may_begin() && !partition.is_over());
    /// partition.end();
    /// assert!(!partition.may_begin() && partition.is_over());
    /// ```
    pub fn wind_down(&self) {
        self.0.winding_down.store(true, Ordering::Release);
        self.0.ended.notify_waiters();
    }

    /// Ends the tenure, for good, and wakes every task that waits for it.
    pub fn end(&self) {
        self.0.over.store(true, Ordering::Release);
        self.0.ended.notify_waiters();
    }

    /// Returns `true` if the tenure has ended.
    pub fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Acquire)
    }

    /// Returns `true` if a handler may begin, or a failed message may be tried again: the tenure
    /// has not ended and does not wind down.
    pub fn may_begin(&self) -> bool {
        !self.is_over() && !self.0.winding_down.load(Ordering::Acquire)
    }

    /// Waits until the tenure ends.
    pub async fn over(&self) {
        self.until(Self::is_over).await;
    }

    /// Waits until the tenure winds down or ends.
    pub async fn winding_down(&self) {
        self.until(|tenure| !tenure.may_begin()).await;
    }

    async fn until(&self, reached: impl Fn(&Self) -> bool) {
        loop {
            // Registered before the check, so that a change in between is not missed.
            let changed = self.0.ended.notified();
            if reached(self) {
                return;
            }
            changed.await;
        }
    }
}

impl fmt::Debug for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenure").field("over", &self.is_over()).finish()
    }
}
