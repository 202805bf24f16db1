//! The end of a delivery.

use crate::message::HandlerError;

/// The way in which a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Settlement {
    /// The message was handled.
    Acknowledged,
    /// The message is redelivered.
    Retried,
    /// The message was given up, and copied to the dead-letter topic if the subscription names one.
    Rejected,
    /// No settlement was due: the subscription is [at most
    /// once](crate::Subscription::at_most_once).
    None,
}

impl Settlement {
    /// Returns the name that is used as a span attribute.
    ///
    /// ```
    /// use traced_broker::Settlement;
    ///
    /// assert_eq!(Settlement::Acknowledged.as_str(), "ack");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledged => "ack",
            Self::Retried => "retry",
            Self::Rejected => "reject",
            Self::None => "none",
        }
    }
}

/// The result of a processed delivery.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use futures_util::StreamExt;
/// use traced_broker::{HandlerError, Message, Settlement, Subscription, TracedBroker, connect};
///
/// let broker = connect("memory://").await?;
/// let mut deliveries = broker.subscribe(Subscription::new("orders").group("workers")).await?;
/// broker.publish("orders", Message::new("one left shoe")).await?;
///
/// let delivery = deliveries.next().await.expect("the broker is open")?;
/// let rejecting = async |_| Err::<(), _>(HandlerError::reject("sold in pairs"));
/// let processed = delivery.process(rejecting).await?;
/// assert_eq!(processed.settlement, Settlement::Rejected);
/// assert_eq!(processed.error.expect("the handler failed").to_string(), "sold in pairs");
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Processed {
    /// The settlement of the delivery.
    pub settlement: Settlement,
    /// The handler's error, if it failed or panicked.
    pub error: Option<HandlerError>,
}
