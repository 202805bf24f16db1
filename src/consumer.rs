//! A running subscription: the stream of deliveries.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_core::Stream;
use opentelemetry::KeyValue;
use opentelemetry::trace::TraceContextExt;
use tokio::time::Sleep;

use crate::address::{Guarantee, Topic};
use crate::capability::Capabilities;
use crate::dead_letter::DeadLetters;
use crate::delivery::Delivery;
use crate::driver::{DeliveryHandle, Disposition, Inbound, Source};
use crate::error::{Error, Result};
use crate::held::{Held, HeldDelivery};
use crate::latency::Queued;
use crate::metrics::{CONTEXT_HEADER, CONTEXT_REASON, with};
use crate::propagation::{Hop, Origin, Reception, Rejections, ReplayMark};
use crate::received::{Parts, Received};
use crate::span::{HOP, QUEUE_CLOCK, SettleTemplates, SpanTemplate};
use crate::tracer::Telemetry;

/// What the deliveries of one subscription share.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) system: &'static str,
    pub(crate) topic: Topic,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) process: SpanTemplate,
    pub(crate) settle: SettleTemplates,
    pub(crate) reception: Reception,
    pub(crate) replayed: ReplayMark,
    pub(crate) rejections: Rejections,
    pub(crate) guarantee: Guarantee,
    pub(crate) capabilities: Capabilities,
    pub(crate) dead_letters: Option<DeadLetters>,
    pub(crate) held: Held,
}

impl Consumer {
    /// Reads the context that a message carries, and decides what to make of it.
    fn receive(&self, inbound: &Inbound) -> Origin {
        let extracted = self.telemetry.settings.propagation.extract(&inbound.headers);
        extracted.rejections(|header, reason, count| self.reject(header, reason, count));
        if inbound.unreadable_headers > 0 {
            self.reject("other", "unreadable", inbound.unreadable_headers as usize);
        }
        let is_replayed = self.replayed.covers(inbound.timestamp.map(|stored| stored.time));
        let (context, dialect) = if extracted.context.span().span_context().is_valid() {
            (extracted.context, None)
        } else {
            match self.reception.translate(&inbound.headers, inbound.payload.as_deref()) {
                Some((context, dialect)) => (context, Some(dialect)),
                None => (extracted.context, None),
            }
        };
        self.reception.receive(context, dialect, &inbound.headers, is_replayed)
    }

    /// Counts what was not used of a message's headers; says so once for each kind, for a foreign producer may do it with every message.
    fn reject(&self, header: &'static str, reason: &'static str, count: usize) {
        if self.rejections.is_new(header, reason) {
            tracing::warn!(topic = %self.topic, header, reason, "a context was not used; more of the kind are counted, not logged");
        }
        if let Some(instruments) = self.telemetry.metrics.instruments() {
            let kind = [KeyValue::new(CONTEXT_HEADER, header), KeyValue::new(CONTEXT_REASON, reason)];
            instruments.rejected.add(count as u64, &with(&self.process.counted.at(None), kind));
        }
    }

    /// Measures a delivery that is handed out.
    fn count(&self, message: &Received) {
        let Some(instruments) = self.telemetry.metrics.instruments() else { return };
        let attributes = self.process.counted.at(message.partition());
        instruments.consumed.add(1, &attributes);
        let (Some(queued), Some(timestamp)) = (message.queued, message.timestamp()) else { return };
        let clock = KeyValue::new(QUEUE_CLOCK, timestamp.source.as_str());
        let hop = message.origin().hop;
        let attributes = match hop {
            Hop::Direct => with(&attributes, [clock]),
            hop => with(&attributes, [clock, KeyValue::new(HOP, hop.as_str())]),
        };
        instruments.queue_duration.record(queued.time.as_secs_f64(), &attributes);
        if queued.is_skewed {
            instruments.skewed.add(1, &attributes);
        }
    }

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
        let origin = self.consumer.receive(&inbound);
        let handle = match self.consumer.guarantee {
            Guarantee::AtLeastOnce => Some(inbound.handle),
            Guarantee::AtMostOnce => {
                // Counts as handled from here on, so that the answer changes nothing.
                drop(inbound.handle.settle(Disposition::Ack));
                None
            }
        };
        let parts = Parts {
            topic: self.consumer.topic.clone(),
            payload: inbound.payload,
            key: inbound.key,
            id: inbound.id,
            headers: inbound.headers,
            timestamp: inbound.timestamp,
            partition: inbound.partition,
            offset: inbound.offset,
            origin,
        };
        self.hand_out(Arc::new(parts), attempt, handle)
    }

    fn hand_out(&self, parts: Arc<Parts>, attempt: u32, handle: Option<Box<dyn DeliveryHandle>>) -> Delivery {
        let queued = Queued::until(SystemTime::now(), parts.timestamp);
        let message = Received { parts, attempt, queued };
        self.consumer.count(&message);
        Delivery::new(message, handle, Arc::clone(&self.consumer))
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
