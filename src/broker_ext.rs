//! What every broker can do by means of what [`TracedBroker`] says it can.

use crate::address::Subscription;
use crate::broker::TracedBroker;
use crate::consume::Consume;

/// Calls that are the same for every broker, over [`TracedBroker`]; also on `Arc<dyn TracedBroker>`.
pub trait TracedBrokerExt: TracedBroker {
    /// Runs `handler` on the messages of a subscription; see [`consume`](crate::consume).
    ///
    /// What is returned does nothing until it is [run](Consume::run).
    fn consume<H>(&self, subscription: Subscription, handler: H) -> Consume<'_, Self, H> {
        Consume::new(self, subscription, handler)
    }
}

impl<B: TracedBroker + ?Sized> TracedBrokerExt for B {}
