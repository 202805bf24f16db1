//! The report of a consumer.

use std::fmt;

use crate::broker::Settlement;
use crate::error::{ErrorKind, Result};

/// The outcomes of the messages that a consumer took. Attempts are counted, not messages: a message
/// that is retried twice counts three times.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::{HandlerError, Message, Received, Subscription};
/// use traced_broker::{TracedBroker, TracedBrokerExt, connect};
///
/// let broker = connect("memory://").await?;
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
/// broker.publish("orders", Message::new("")).await?;
/// let ship = async |order: Received| match order.payload().is_empty() {
///     true => Err(HandlerError::reject("an empty order")),
///     false => Ok(()),
/// };
/// let shutdown = tokio::time::sleep(Duration::from_millis(50));
/// let workers = Subscription::new("orders").group("workers");
/// let report = broker.consume(workers, ship).run_until(shutdown).await?;
/// assert_eq!(report.attempts(), 2);
/// assert_eq!(report.to_string(), "1 handled, 1 rejected");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Messages handled and acknowledged.
    pub handled: u64,
    /// Messages acknowledged without being handled, because of a [filter](super::Consume::filter).
    pub skipped: u64,
    /// Attempts that failed and are retried.
    pub retried: u64,
    /// Messages given up: copied to the dead-letter topic, or discarded if there is none.
    pub rejected: u64,
    /// Failures on an at-most-once subscription, whose messages cannot be retried or rejected.
    pub failed: u64,
    /// Messages handled but not settled: the connection or assignment was gone, or the consumer
    /// stopped before the broker answered. They may be redelivered. If one comes again to this
    /// subscription, it is settled without running its handler.
    pub unsettled: u64,
    /// Messages taken but not finished when the consumer stopped. They are redelivered, here or
    /// elsewhere.
    pub abandoned: u64,
    /// Messages that were lost before their handler began: another consumer has them.
    pub lost: u64,
    /// Problems that the subscription reported, such as a lost connection.
    pub errors: u64,
}

impl Report {
    /// Returns the number of attempts that ended.
    pub fn attempts(&self) -> u64 {
        self.handled + self.retried + self.rejected + self.failed + self.unsettled
    }

    /// Counts an attempt by its settlement, or by the error of settling.
    pub(super) fn count(&mut self, settled: &Result<Settlement>) {
        match settled {
            Ok(Settlement::Acknowledged | Settlement::None) => self.handled += 1,
            Ok(Settlement::Retried) => self.retried += 1,
            Ok(Settlement::Rejected) => self.rejected += 1,
            Err(error) if error.kind() == ErrorKind::Unsupported => self.failed += 1,
            Err(_) => self.unsettled += 1,
        }
    }
}

impl fmt::Display for Report {
    /// Writes one line: the number of handled messages, and the other counts that are not 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} handled", self.handled)?;
        let others = [
            (self.skipped, "skipped"),
            (self.retried, "retried"),
            (self.rejected, "rejected"),
            (self.failed, "failed"),
            (self.unsettled, "not settled"),
            (self.abandoned, "abandoned"),
            (self.lost, "lost"),
            (self.errors, "errors"),
        ];
        others.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, ", {count} {what}"))
    }
}
