//! The timestamp of a message, the clock it comes from, and the time in the queue.

use std::time::{Duration, SystemTime};

/// The time at which a message was stored or sent.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::SystemTime;
/// use futures_util::StreamExt;
/// use traced_broker::capability::TimestampSource;
/// use traced_broker::{Message, Subscription, TracedBroker, connect};
///
/// let broker = connect("memory://").await?;
/// let mut orders = broker.subscribe(Subscription::new("orders").group("workers")).await?;
/// broker.publish("orders", Message::new("shoes")).await?;
///
/// let delivery = orders.next().await.expect("open")?;
/// let timestamp = delivery.message().timestamp().expect("a timestamp");
/// assert_eq!(timestamp.source, TimestampSource::Broker);
/// assert!(timestamp.time <= SystemTime::now());
/// assert!(delivery.message().time_in_queue().is_some());
/// delivery.ack().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// The time.
    pub time: SystemTime,
    /// The clock that set the time.
    pub source: TimestampSource,
}

/// The clock that stamped a message; its time in the queue is measured from this stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimestampSource {
    /// The broker's clock, when it stored the message.
    Broker,
    /// The producer's clock, carried in a property or header.
    Producer,
}

impl TimestampSource {
    /// Returns the name used as an attribute value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Producer => "producer",
        }
    }
}

/// The time from a message's timestamp until it was handed out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queued {
    /// Never negative.
    pub(crate) time: Duration,
    /// `true` if the timestamp lies in the future: the two clocks disagree, and the time is
    /// reported as zero.
    pub(crate) is_skewed: bool,
}

impl Queued {
    pub(crate) fn until(now: SystemTime, timestamp: Option<Timestamp>) -> Option<Self> {
        let elapsed = now.duration_since(timestamp?.time);
        Some(Self { time: elapsed.as_ref().copied().unwrap_or_default(), is_skewed: elapsed.is_err() })
    }
}
