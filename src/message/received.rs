//! A received message, as handlers see it.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::native::Native;
use super::tenure::Tenure;
use super::timestamp::Queued;
use super::timestamp::Timestamp;
use super::topic::Topic;
use crate::context::propagation::Origin;
use crate::headers::Headers;

/// A received message: payload, key, headers and origin. Cheap to clone.
///
/// The headers are those on the wire, with the properties that the adapter maps to headers. Values
/// are text or bytes; the types that RabbitMQ gives them return in copies only.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use futures_util::StreamExt;
/// use traced_broker::{HandlerError, Message, Received, Subscription, TracedBroker, connect};
///
/// async fn ship(message: Received) -> Result<(), HandlerError> {
///     let customer = message.key().ok_or_else(|| HandlerError::reject("no customer"))?;
///     println!("{}: {:?} for {customer:?}", message.topic(), message.payload());
///     Ok(())
/// }
///
/// let broker = connect("memory://").await?;
/// let mut orders = broker.subscribe(Subscription::new("orders").group("workers")).await?;
/// broker.publish("orders", Message::new("shoes").key("customer-7")).await?;
/// broker.publish("orders", Message::new("socks")).await?;
///
/// let shoes = orders.next().await.expect("open")?.process(ship).await?;
/// assert!(shoes.error.is_none());
/// let socks = orders.next().await.expect("open")?.process(ship).await?;
/// assert_eq!(socks.error.expect("no key").to_string(), "no customer");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Received {
    pub(crate) parts: Arc<Parts>,
    pub(crate) attempt: u32,
    /// The time in the queue, at the first hand-out.
    pub(crate) queued: Option<Queued>,
    /// The time at which the message was handed out for this attempt.
    pub(crate) handed_out: Instant,
}

#[derive(Debug)]
pub(crate) struct Parts {
    /// The system that the message was received from.
    pub(crate) system: &'static str,
    pub(crate) topic: Topic,
    pub(crate) payload: Option<Bytes>,
    pub(crate) key: Option<Bytes>,
    pub(crate) id: Option<String>,
    pub(crate) headers: Headers,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) partition: Option<i32>,
    pub(crate) offset: Option<i64>,
    pub(crate) native: Option<Native>,
    pub(crate) origin: Origin,
    pub(crate) deliveries: Option<u32>,
    /// The number of trials that were never heard of again, if the message is a suspect.
    pub(crate) lost_trials: Option<u32>,
    pub(crate) tenure: Tenure,
    /// The text of the error with which decoding the payload failed.
    pub(crate) undecodable: OnceLock<String>,
}

#[cfg(test)]
impl Parts {
    /// Returns the parts of a message for tests.
    pub(crate) fn example() -> Self {
        Self {
            system: "memory",
            topic: Topic::new("orders").expect("a valid name"),
            payload: Some("shoes".into()),
            key: None,
            id: None,
            headers: Headers::new(),
            timestamp: None,
            partition: None,
            offset: None,
            native: None,
            origin: Origin::default(),
            deliveries: None,
            lost_trials: None,
            tenure: Tenure::new(),
            undecodable: OnceLock::new(),
        }
    }
}

impl Received {
    /// Returns the topic that the message was published to.
    pub fn topic(&self) -> &Topic {
        &self.parts.topic
    }

    /// Returns the payload; empty for a tombstone.
    pub fn payload(&self) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        self.parts.payload.as_ref().unwrap_or(&EMPTY)
    }

    /// Returns `true` if the message has no payload at all, as opposed to an empty one.
    pub fn is_tombstone(&self) -> bool {
        self.parts.payload.is_none()
    }

    /// Returns the key, if there is one.
    pub fn key(&self) -> Option<&Bytes> {
        self.parts.key.as_ref()
    }

    /// Returns the message id: the sender's if there is one, otherwise the broker's.
    pub fn id(&self) -> Option<&str> {
        self.parts.id.as_deref()
    }

    /// Returns the headers as they are on the wire.
    pub fn headers(&self) -> &Headers {
        &self.parts.headers
    }

    /// Returns the number of this attempt to handle the message, from 1. Attempts are runs of a
    /// handler: being fetched ahead, given back by a deploy or a rebalance, or redelivered after a
    /// lost connection costs none. See [`deliveries`](Self::deliveries).
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the number of times that the broker has handed the message out to this group, with
    /// this one, from 1; `None` on brokers that do not count. It is at least as high as the number
    /// of redeliveries, and says nothing about handlers.
    pub fn deliveries(&self) -> Option<u32> {
        self.parts.deliveries
    }

    /// Returns `true` if the message no longer belongs to this consumer: its connection was lost,
    /// its partition was revoked, or another consumer took it over. It is redelivered; settling it
    /// here has no effect.
    pub fn is_lost(&self) -> bool {
        self.parts.tenure.is_over()
    }

    /// Returns a future that ends when the message [is lost](Self::is_lost), for handlers that
    /// should not go on with the work of another consumer.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # async fn pack() {}
    /// use traced_broker::{HandlerError, Received};
    ///
    /// async fn ship(message: Received) -> Result<(), HandlerError> {
    ///     tokio::select! {
    ///         () = pack() => Ok(()),
    ///         () = message.lost() => Err("another consumer has the order now".into()),
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # use traced_broker::{Message, Subscription, TracedBroker, TracedBrokerExt, connect};
    /// let broker = connect("memory://").await?;
    /// broker.publish("orders", Message::new("shoes")).await?;
    /// let workers = Subscription::new("orders").group("workers");
    /// let shutdown = tokio::time::sleep(Duration::from_millis(50));
    /// broker.consume(workers, ship).run_until(shutdown).await?;
    /// # Ok(()) }
    /// ```
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let tenure = self.parts.tenure.clone();
        async move { tenure.over().await }
    }

    /// Returns the time at which the message was stored or sent, and the clock it comes from.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.parts.timestamp
    }

    /// Returns the time that the message spent in the queue until it was handed out, never
    /// negative; `None` without a timestamp.
    pub fn time_in_queue(&self) -> Option<Duration> {
        self.queued.map(|queued| queued.time)
    }

    /// Returns the time since the message was handed out: its wait in this process, once its
    /// handler begins.
    pub(crate) fn waited(&self) -> Duration {
        self.handed_out.elapsed()
    }

    /// Returns the creation context of the message and the policy that applies to it.
    pub(crate) fn origin(&self) -> &Origin {
        &self.parts.origin
    }

    /// Returns the partition of the message, on brokers that have partitions.
    pub fn partition(&self) -> Option<i32> {
        self.parts.partition
    }

    /// Returns the offset or sequence number, on brokers that have one.
    pub fn offset(&self) -> Option<i64> {
        self.parts.offset
    }
}
