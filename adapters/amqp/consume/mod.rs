//! Consuming: one channel per subscription, replaced when it ends.

pub(crate) mod delivery;
pub(crate) mod retry;
pub(crate) mod settle;

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use lapin::Consumer;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use parking_lot::Mutex;
use tokio::runtime::Handle as Runtime;
use tokio_util::sync::DropGuard;

use self::delivery::Handle;
use self::retry::RetryTarget;
use self::settle::Settler;
use super::SYSTEM;
use super::config::{RoutingKey, Settings};
use super::connection::Live;
use super::connection::link::{Link, Pauses};
use super::error::During;
use super::headers::copy::Original;
use super::headers::incoming::Decoded;
use super::publish::Publisher;
use super::topology::waiting::Target;
use super::topology::{PARKED, declare_group, declare_reader, declare_topic};
use crate::driver::{Disposition, Inbound, Native, Topology};
use crate::error::{ErrorKind, Result};
use crate::message::{Guarantee, Subscription};
use crate::names::header;

/// The settlers of a driver's subscriptions, for closing. Settlers that are no longer in use are
/// removed at the next subscription.
#[derive(Debug, Default)]
pub(super) struct Settlers(Mutex<Vec<Weak<Settler>>>);

impl Settlers {
    fn add(&self, settler: &Arc<Settler>) {
        let mut settlers = self.0.lock();
        settlers.retain(|settler| settler.strong_count() > 0);
        settlers.push(Arc::downgrade(settler));
    }

    pub(super) fn all(&self) -> Vec<Arc<Settler>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// Everything that is needed to start a subscription, and to start it again.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) settings: Arc<Settings>,
    pub(super) link: Arc<Link>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) settlers: Arc<Settlers>,
    pub(super) subscription: Subscription,
    /// Keeps the connection up while the subscription lives.
    pub(super) _life: Arc<DropGuard>,
}

impl Plan {
    /// Declares exchange and queue, or only checks them, and starts to consume.
    pub(super) async fn start(&self, live: Arc<Live>) -> Result<Reading> {
        let topology = self.settings.topology;
        let topic = self.subscription.topic();
        let prefetch = u16::try_from(self.subscription.prefetch_limit()).unwrap_or(u16::MAX);
        let channel = live.channel(During::Consume).await?;
        declare_topic(&live, &channel, topic, topology).await?;
        if let Some(dead) = self.subscription.dead_letter_topic() {
            declare_topic(&live, &channel, dead, topology).await?;
            if topology == Topology::Create {
                declare_group(&live, &channel, dead, PARKED, topology).await?;
            }
        }
        let (queue, retry_target) = match self.subscription.group_name() {
            Some(group) => {
                let queue = declare_group(&live, &channel, topic, group, topology).await?;
                let target = Target::Queue(queue.as_str().to_owned());
                (queue, RetryTarget::AtBroker(Arc::clone(&self.publisher), target))
            }
            None => (declare_reader(&live, &channel, topic).await?, RetryTarget::Here),
        };
        // Per consumer: this is the only bound of the client's own buffer.
        live.request(During::Consume, channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(queue, ShortString::default(), options, FieldTable::default());
        let consumer = live.request(During::Consume, consume).await?;
        let settler = Settler::start(live, channel, prefetch);
        self.settlers.add(&settler);
        let target = retry_target.target().map(ToString::to_string);
        Ok(Reading { consumer: Some(consumer), settler, retry_target: Arc::new(retry_target), target })
    }

    /// Starts the subscription again on the next connection, after its channel has ended.
    async fn resume(self: Arc<Self>, mut pauses: Pauses) -> (Result<Reading>, Pauses) {
        loop {
            if !self.link.closed().is_cancelled() {
                pauses.next().await;
            }
            let live = match self.link.restored().await {
                Ok(live) => live,
                Err(closed) => return (Err(closed), pauses),
            };
            match self.start(live).await {
                Err(error) if error.is_retryable() => {
                    tracing::warn!(topic = self.subscription.topic(), %error, "the subscription cannot be resumed yet");
                }
                result => return (result, pauses),
            }
        }
    }
}

/// The stream of one subscription, across connections.
pub(super) struct Deliveries {
    plan: Arc<Plan>,
    state: State,
}

enum State {
    Reading(Reading),
    Resuming(BoxFuture<'static, (Result<Reading>, Pauses)>),
    Ended,
}

impl Deliveries {
    pub(super) fn new(plan: Arc<Plan>, reading: Reading) -> Self {
        Self { plan, state: State::Reading(reading) }
    }

    fn resume(&mut self, pauses: Pauses) {
        self.state = State::Resuming(Arc::clone(&self.plan).resume(pauses).boxed());
    }

    fn inbound(&self, reading: &Reading, delivery: Delivery) -> Inbound {
        let Delivery { delivery_tag: tag, redelivered, properties, data, routing_key, .. } = delivery;
        let mut decoded = Decoded::read(&properties, reading.target.as_deref());
        let at_most_once = self.plan.subscription.guarantee() == Guarantee::AtMostOnce;
        reading.settler.deliver(tag);
        if at_most_once {
            // If the channel has just ended, this fails and the broker redelivers the message.
            let _ = reading.settler.settle(tag, Disposition::Ack);
        }
        let routed = self.routed(&mut decoded, routing_key.as_str());
        let (payload, properties) = (Bytes::from(data), Arc::new(properties));
        let attempt = attempt(redelivered, decoded.delivered_before).saturating_add(decoded.tried_before);
        let native = Some(Native::shared(SYSTEM, properties.clone()));
        let original = Original { properties, routing_key, payload: payload.clone(), attempt };
        let tenure = reading.settler.tenure.clone();
        let (settler, retry_target) = (Arc::clone(&reading.settler), Arc::clone(&reading.retry_target));
        Inbound {
            payload: Some(payload),
            key: decoded.key.or(routed),
            id: decoded.id,
            headers: decoded.headers,
            unreadable_headers: decoded.unreadable,
            attempt,
            deliveries: None,
            timestamp: decoded.timestamp,
            partition: None,
            offset: None,
            native,
            tenure,
            handle: Box::new(Handle { settler, tag, at_most_once, retry_target, original }),
        }
    }
}

impl Deliveries {
    /// Returns the routing key if it is the message's key. Otherwise, it becomes a header.
    fn routed(&self, decoded: &mut Decoded, routing_key: &str) -> Option<Bytes> {
        if routing_key.is_empty() {
            return None;
        }
        if self.plan.settings.routing_key == RoutingKey::Key {
            return Some(Bytes::copy_from_slice(routing_key.as_bytes()));
        }
        if !decoded.headers.contains(header::AMQP_ROUTING_KEY) {
            decoded.headers.append(header::AMQP_ROUTING_KEY, routing_key);
        }
        None
    }
}

/// Returns the number of the attempt. The count is read only if the broker marks the message as
/// redelivered, because any publisher can write this header.
fn attempt(redelivered: bool, delivered_before: Option<u32>) -> u32 {
    if redelivered { delivered_before.unwrap_or(1).max(1).saturating_add(1) } else { 1 }
}

impl Stream for Deliveries {
    type Item = Result<Inbound>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut self.state {
                State::Reading(reading) => match ready!(reading.poll_next(cx)) {
                    // Fetched ahead on a channel that has ended; the broker redelivers it on the
                    // next channel.
                    Some(_) if reading.settler.is_over() => {}
                    Some(delivery) => {
                        let State::Reading(reading) = &self.state else { return Poll::Ready(None) };
                        return Poll::Ready(Some(Ok(self.inbound(reading, delivery))));
                    }
                    None => {
                        reading.settler.abandon();
                        self.resume(Pauses::default());
                    }
                },
                State::Resuming(resumed) => match ready!(resumed.poll_unpin(cx)) {
                    (Ok(reading), _) => self.state = State::Reading(reading),
                    (Err(error), _) if error.kind() == ErrorKind::Closed => self.state = State::Ended,
                    (Err(error), pauses) => {
                        self.resume(pauses);
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

/// A consumer on its channel.
pub(super) struct Reading {
    consumer: Option<Consumer>,
    settler: Arc<Settler>,
    retry_target: Arc<RetryTarget>,
    /// The target named in messages that waited at the broker for this queue.
    target: Option<String>,
}

impl Reading {
    /// Returns the next message of this channel, or `None` when the channel has ended.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let Some(consumer) = &mut self.consumer else { return Poll::Ready(None) };
        loop {
            match ready!(consumer.poll_next_unpin(cx)) {
                Some(Ok(delivery)) => return Poll::Ready(Some(delivery)),
                // The end of the stream follows.
                Some(Err(error)) => tracing::debug!(%error, "a RabbitMQ consumer ended"),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for Reading {
    /// Stops the deliveries and returns to the broker the messages that were fetched ahead. The
    /// channel stays open until the last delivery that was handed out is settled or dropped.
    fn drop(&mut self) {
        let (Some(mut consumer), Ok(runtime)) = (self.consumer.take(), Runtime::try_current()) else { return };
        if self.settler.is_over() {
            return;
        }
        let settler = Arc::clone(&self.settler);
        settler.bring_now();
        runtime.spawn(async move {
            settler.cancel(&consumer).await;
            while let Some(Some(fetched)) = consumer.next().now_or_never() {
                if let Ok(delivery) = fetched {
                    settler.give_back(delivery.delivery_tag);
                }
            }
        });
    }
}
