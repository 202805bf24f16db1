//! A running subscription: the stream of deliveries.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_core::Stream;
use tokio::time::Sleep;

use crate::address::{Guarantee, Topic};
use crate::capability::Capabilities;
use crate::dead_letter::DeadLetters;
use crate::delivery::Delivery;
use crate::driver::{DeliveryHandle, Disposition, Inbound, Source};
use crate::error::{Error, Result};
use crate::held::{Held, HeldDelivery};
use crate::latency::time_in_queue;
use crate::propagation::TracePolicy;
use crate::received::{Parts, Received};
use crate::span::SpanTemplate;
use crate::tracer::Telemetry;

/// What the deliveries of one subscription share.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) system: &'static str,
    pub(crate) topic: Topic,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) process: SpanTemplate,
    pub(crate) policy: TracePolicy,
    pub(crate) guarantee: Guarantee,
    pub(crate) capabilities: Capabilities,
    pub(crate) dead_letters: Option<DeadLetters>,
    pub(crate) held: Held,
}

impl Consumer {
    /// Adds to an error where it happened.
    pub(crate) fn annotate(&self, error: Error, operation: &'static str) -> Error {
        error.with_system(self.system).with_operation(operation).with_context("topic", &self.topic)
    }
}

/// The deliveries of a subscription, as a [`Stream`]. Dropping it ends the subscription.
///
/// An error item reports trouble, such as a lost connection that is being restored; the stream goes on after it. It ends when
/// the broker is closed.
#[must_use = "a stream of deliveries does nothing unless it is polled"]
pub struct Deliveries {
    source: Source,
    consumer: Arc<Consumer>,
    /// Runs until the next held delivery is due.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether it is the broker's turn, before the deliveries that are held.
    brokers_turn: bool,
}

impl Deliveries {
    pub(crate) fn new(source: Source, consumer: Consumer) -> Self {
        Self { source, consumer: Arc::new(consumer), timer: None, brokers_turn: false }
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Option<Delivery> {
        loop {
            match self.consumer.held.next_due(cx) {
                Ok(HeldDelivery { parts, attempt, handle }) => {
                    return Some(self.hand_out(parts, attempt, Some(handle)));
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
        let handle = match self.consumer.guarantee {
            Guarantee::AtLeastOnce => Some(inbound.handle),
            Guarantee::AtMostOnce => {
                // Counts as handled from here on, so that the answer changes nothing.
                drop(inbound.handle.settle(Disposition::Ack));
                None
            }
        };
        if inbound.unreadable_headers > 0 {
            tracing::debug!(topic = %self.consumer.topic, count = inbound.unreadable_headers, "headers left out: not readable");
        }
        let parts = Parts {
            topic: self.consumer.topic.clone(),
            payload: inbound.payload,
            key: inbound.key,
            id: inbound.id,
            headers: inbound.headers,
            timestamp: inbound.timestamp,
            partition: inbound.partition,
            offset: inbound.offset,
        };
        self.hand_out(Arc::new(parts), attempt, handle)
    }

    fn hand_out(&self, parts: Arc<Parts>, attempt: u32, handle: Option<Box<dyn DeliveryHandle>>) -> Delivery {
        let queued = time_in_queue(parts.timestamp, SystemTime::now());
        Delivery::new(Received { parts, attempt, queued }, handle, Arc::clone(&self.consumer))
    }
}

impl Stream for Deliveries {
    type Item = Result<Delivery>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        // By turns: the end of the source has to show, however many deliveries are held and due.
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
                // What is held can no longer be settled: nobody is to work on it.
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
