//! The stream of a subscription's deliveries.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use futures_core::Stream;
use tokio::time::Sleep;

use super::consumer::Consumer;
use super::delivery::Delivery;
use super::held::HeldDelivery;
use crate::driver::{DeliveryHandle, Disposition, Inbound, Source};
use crate::error::Result;
use crate::message::{Guarantee, Parts, Queued, Received};
use crate::telemetry::SubscriptionTelemetry;

/// The deliveries of a subscription, as a [`Stream`]. Dropping it ends the subscription.
///
/// An error item reports a problem, such as a lost connection that is being restored; the stream
/// continues after it. The stream ends when the broker is closed.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use futures_util::StreamExt;
/// use traced_broker::{Message, Subscription, TracedBroker, connect};
///
/// let broker = connect("memory://").await?;
/// let mut deliveries = broker.subscribe(Subscription::new("orders").group("workers")).await?;
/// broker.publish("orders", Message::new("one pair of shoes")).await?;
///
/// while let Some(next) = deliveries.next().await {
///     match next {
///         Ok(delivery) => delivery.ack().await?,
///         Err(error) => eprintln!("the subscription continues: {error}"),
///     }
///     broker.close().await?; // ends the stream
/// }
/// # Ok(()) }
/// ```
#[must_use = "a stream of deliveries does nothing unless it is polled"]
pub struct Deliveries {
    source: Source,
    consumer: Arc<Consumer>,
    /// The timer of the next held delivery.
    timer: Option<Pin<Box<Sleep>>>,
    /// `true` if the broker is polled next, before the held deliveries.
    brokers_turn: bool,
}

impl Deliveries {
    pub(crate) fn new(source: Source, consumer: Consumer) -> Self {
        Self { source, consumer: Arc::new(consumer), timer: None, brokers_turn: false }
    }

    /// Takes no more messages from the broker. Deliveries that are out can still be settled.
    /// Returns `false` if the source cannot stop, and may take messages until it is dropped.
    pub(crate) fn stop(&mut self) -> bool {
        self.source.stop()
    }

    /// Returns the telemetry of the subscription.
    pub(crate) fn telemetry(&self) -> &Arc<SubscriptionTelemetry> {
        &self.consumer.telemetry
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Option<Delivery> {
        loop {
            match self.consumer.held.next_due(cx) {
                // It was lost while it waited: it is redelivered elsewhere.
                Ok(HeldDelivery { parts, .. }) if !parts.tenure.may_begin() => {}
                Ok(HeldDelivery { parts, attempt, handle, seat }) => {
                    let mut delivery = self.hand_out(parts, attempt, None, Some(handle));
                    delivery.seat = seat;
                    return Some(delivery);
                }
                Err(None) => return None,
                Err(Some(due)) => {
                    let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
                    if timer.deadline() != due {
                        timer.as_mut().reset(due);
                    }
                    if timer.as_mut().poll(cx).is_pending() {
                        return None;
                    }
                    self.timer = None;
                }
            }
        }
    }

    fn take_in(&self, inbound: Inbound) -> Delivery {
        let attempt = inbound.attempt.max(1);
        let origin = self.consumer.receive(&inbound);
        let handle = match self.consumer.guarantee {
            Guarantee::AtLeastOnce => Some(inbound.handle),
            Guarantee::AtMostOnce => {
                // The message counts as handled from here on, so the answer is not awaited.
                drop(inbound.handle.settle(Disposition::Ack));
                None
            }
        };
        let parts = Parts {
            system: self.consumer.system,
            topic: self.consumer.topic.clone(),
            payload: inbound.payload,
            key: inbound.key,
            id: inbound.id,
            headers: inbound.headers,
            timestamp: inbound.timestamp,
            partition: inbound.partition,
            offset: inbound.offset,
            native: inbound.native,
            origin,
            deliveries: inbound.deliveries,
            lost_trials: inbound.lost_trials,
            tenure: inbound.tenure,
            undecodable: OnceLock::new(),
        };
        // Later hand-outs would measure the wait before a retry, too.
        let queued = if attempt == 1 { Queued::until(SystemTime::now(), parts.timestamp) } else { None };
        let delivery = self.hand_out(Arc::new(parts), attempt, queued, handle);
        self.consumer.telemetry.count(delivery.message());
        delivery
    }

    fn hand_out(
        &self,
        parts: Arc<Parts>,
        attempt: u32,
        queued: Option<Queued>,
        handle: Option<Box<dyn DeliveryHandle>>,
    ) -> Delivery {
        let message = Received { parts, attempt, queued, handed_out: Instant::now() };
        Delivery::new(message, handle, Arc::clone(&self.consumer))
    }
}

impl Stream for Deliveries {
    type Item = Result<Delivery>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        // Alternate: the end of the source must be noticed even if many held deliveries are due.
        if !std::mem::take(&mut self.brokers_turn)
            && let Some(delivery) = self.poll_held(cx)
        {
            self.brokers_turn = true;
            return Poll::Ready(Some(Ok(delivery)));
        }
        match self.source.poll_next(cx) {
            Poll::Ready(Some(Ok(inbound))) => Poll::Ready(Some(Ok(self.take_in(inbound)))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.consumer.annotate(error, "receive")))),
            Poll::Ready(None) => {
                // Held deliveries can no longer be settled; drop them.
                self.consumer.held.close();
                Poll::Ready(None)
            }
            Poll::Pending => match self.poll_held(cx) {
                Some(delivery) => Poll::Ready(Some(Ok(delivery))),
                None => Poll::Pending,
            },
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.consumer.held.close();
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").field("topic", &self.consumer.topic).finish_non_exhaustive()
    }
}
