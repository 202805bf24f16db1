//! The time during which a delivery can be settled.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The time during which deliveries belong to this process: from the hand-out until settling them
/// can have no effect any more, because their connection, assignment or group is gone, or another
/// consumer took them over.
///
/// A driver makes one for all deliveries that are lost together, hands it out with each of them,
/// and [ends](Self::end) it when they are lost. Clones are the same tenure.
///
/// The layer above asks before it begins a handler, before another attempt, and before it publishes
/// a dead letter. A running handler can wait for the end: [`Received::lost`](crate::Received::lost).
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
    ended: Notify,
}

impl Tenure {
    /// Starts a tenure.
    pub fn new() -> Self {
        Self::default()
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

    /// Waits until the tenure ends.
    pub async fn over(&self) {
        loop {
            // Registered before the check, so that an end in between is not missed.
            let ended = self.0.ended.notified();
            if self.is_over() {
                return;
            }
            ended.await;
        }
    }
}

impl fmt::Debug for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenure").field("over", &self.is_over()).finish()
    }
}
