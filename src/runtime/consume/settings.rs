//! The settings that all consumers have: workers, batches and bridges.

use std::time::Duration;

use super::DEFAULT_DRAIN_TIME;
use super::retry::Retry;
use crate::broker::Delivery;
use crate::driver::Capabilities;
use crate::driver::capability::Order;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{HandlerError, Subscription, Verdict};

/// Smallest default of the prefetch of a consumer.
const LEAST_PREFETCH: usize = 16;

/// The treatment of a rejected message whose dead letter the broker refuses for good: the
/// dead-letter topic is missing and may not be created, may not be written to, or takes no letter
/// of this message, however small it is made.
///
/// A dead letter that only cannot be published now is repeated until it can, whatever this says.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::consume::Unburied;
/// use traced_broker::{ErrorKind, HandlerError, Message, Received, Subscription};
/// use traced_broker::{TracedBroker, TracedBrokerExt, connect};
///
/// let shop = connect("memory://shop").await?;
/// shop.publish("orders", Message::new("one left shoe")).await?;
/// let broker = connect("memory://shop?topology=check").await?;
/// let refuse = async |_order: Received| Err::<(), _>(HandlerError::reject("sold in pairs"));
/// let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
///
/// // There is no topic `orders.dead`. The consumer stops, and the message is kept.
/// let error = broker.consume(workers.clone(), refuse).run().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
///
/// let shutdown = tokio::time::sleep(std::time::Duration::from_millis(50));
/// let discarding = broker.consume(workers, refuse).when_unburied(Unburied::Discard);
/// assert_eq!(discarding.run_until(shutdown).await?.rejected, 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unburied {
    /// The message is kept, and the consumer stops with the error.
    #[default]
    Stop,
    /// The message is discarded, with an error in the log.
    Discard,
}

/// The treatment of a message whose handler failed while too many others wait: those that wait
/// beyond their share of the prefetch are at the [limit](Subscription::waiting).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::consume::Crowded;
/// use traced_broker::{HandlerError, Message, Received, Retry, Subscription};
/// use traced_broker::{TracedBroker, TracedBrokerExt, connect};
///
/// let broker = connect("memory://").await?;
/// let orders = (0..8).map(|number| Message::new("shoes").key(number.to_string()));
/// broker.publish_batch("orders", orders.collect()).await;
///
/// // Two may wait within the prefetch, and one beyond it.
/// let workers = Subscription::new("orders").group("workers").prefetch(4).waiting(1);
/// let fail = async |_: Received| Err::<(), _>(HandlerError::retry("busy"));
/// let consumer = broker.consume(workers, fail).ordered_by_key().dead_letter("orders.dead");
/// let consumer = consumer.retry(Retry::fixed(5, Duration::from_secs(60)));
/// let shutdown = tokio::time::sleep(Duration::from_millis(100));
/// let report = consumer.when_crowded(Crowded::Reject).run_until(shutdown).await?;
/// assert!(report.rejected > 0); // before its second attempt
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Crowded {
    /// The message waits, too. Once the whole prefetch waits, the consumer takes no others until
    /// one of them is done: nothing is given up because a system behind all handlers is down.
    #[default]
    Wait,
    /// The message is rejected, with fewer attempts than the policy grants: one failing part does
    /// not hold up the rest. Without a dead-letter topic, it is discarded.
    Reject,
}

/// The settings of a consumer; its builder sets them, and running checks them.
#[derive(Debug)]
pub(in crate::runtime) struct Settings {
    /// The number of messages to work on at a time.
    pub(in crate::runtime) size: usize,
    pub(in crate::runtime) ordered: bool,
    pub(in crate::runtime) time_limit: Option<Duration>,
    pub(in crate::runtime) retry: Retry,
    pub(in crate::runtime) drain: Duration,
    pub(in crate::runtime) unburied: Unburied,
    pub(in crate::runtime) crowded: Crowded,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            size: 1,
            ordered: false,
            time_limit: None,
            retry: Retry::default(),
            drain: DEFAULT_DRAIN_TIME,
            unburied: Unburied::default(),
            crowded: Crowded::default(),
        }
    }
}

impl Settings {
    /// Checks the size, which the caller names; chooses the prefetch of the subscription if it was
    /// left open, or raises it to the size, and the number of attempts if it was left open.
    pub(super) fn fit(
        &mut self,
        subscription: Subscription,
        capabilities: &Capabilities,
        named: &'static str,
    ) -> Result<Subscription> {
        if !(1..=Subscription::MAX_PREFETCH).contains(&self.size) {
            let message = format!("the {named} is outside 1 to {}", Subscription::MAX_PREFETCH);
            let error = Error::new(ErrorKind::InvalidConfig, message).with_operation("consume");
            let key = named.split(' ').next().unwrap_or(named);
            return Err(error.with_context(key, self.size));
        }
        self.retry.settle_attempts(subscription.dead_letter_topic().is_some());
        Ok(match subscription.chosen_prefetch() {
            // Left for subscribing to reject.
            Some(0) => subscription,
            Some(chosen) => subscription.prefetch(chosen.max(self.size)),
            None => subscription.prefetch(self.prefetch(capabilities)),
        })
    }

    /// Returns the verdict on a failed attempt at the message of the delivery.
    pub(in crate::runtime) fn verdict(&self, error: &HandlerError, delivery: &Delivery) -> Verdict {
        match self.retry.verdict(error, delivery.message().attempt()) {
            Verdict::Retry(_) if self.crowded == Crowded::Reject && delivery.is_crowded() => Verdict::Reject,
            verdict => verdict,
        }
    }

    /// Returns the default of the prefetch.
    fn prefetch(&self, capabilities: &Capabilities) -> usize {
        if self.ordered || capabilities.order == Order::Partition {
            return self.size.max(Subscription::DEFAULT_PREFETCH);
        }
        (self.size * 2).clamp(LEAST_PREFETCH, Subscription::MAX_PREFETCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(settings: &mut Settings, order: Order, subscription: Subscription) -> usize {
        let capabilities = Capabilities { order, ..Capabilities::new() };
        settings.fit(subscription, &capabilities, "concurrency").unwrap().prefetch_limit()
    }

    #[test]
    fn the_prefetch_follows_the_concurrency_where_members_take_from_each_other() {
        let open = || Subscription::new("orders").group("workers");
        let of = |size, ordered| Settings { size, ordered, ..Settings::default() };
        assert_eq!(fitted(&mut of(1, false), Order::Stream, open()), 16);
        assert_eq!(fitted(&mut of(40, false), Order::Publisher, open()), 80);
        assert_eq!(fitted(&mut of(1, true), Order::Stream, open()), 256);
        assert_eq!(fitted(&mut of(1, false), Order::Partition, open()), 256);
        assert_eq!(fitted(&mut of(40, false), Order::Stream, open().prefetch(7)), 40, "raised to the concurrency");
        assert_eq!(fitted(&mut of(1, false), Order::Stream, open().prefetch(7)), 7);
    }
}
